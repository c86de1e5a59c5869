"""Resuming from a checkpoint under a configuration that may have changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

import torch
import yaml
from torch import nn

from cwrgp.checkpoints.own import unpack

logger = logging.getLogger("cwrgp")


def restore(
    state: dict[str, Any],
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    config: str,
    num_images: int,
    fixed: Collection[str] = (),
) -> int:
    """Loads a checkpoint into the method, its optimizer and the loss scaler.

    Args:
        state: content of the checkpoint, as `cwrgp.checkpoints.own.pack` made it.
        method: receives the weights, all of them.
        optimizer: receives its state.
        scaler: receives its scale, where the checkpoint has one.
        config: of this run as YAML, to tell what changed.
        num_images: of this run; with others, order and schedule would be those of another run.
        fixed: keys of the config, with dots, whose values must be those of the checkpoint.

    Returns:
        The step at which to go on.

    Raises:
        ValueError: the checkpoint is of another model, or of a run that this one cannot continue.
    """
    try:
        saved = unpack(state, "the last checkpoint")
        old = dict(_flat(saved.config))
        new = dict(_flat(yaml.safe_load(config)))
        changed = {
            key: (old.get(key), value) for key, value in new.items() if old.get(key) != value
        }
        for key in fixed:
            if key in old and key in changed:
                raise ValueError(f"{key} was {old[key]!r} and is now {new[key]!r}")
        if saved.num_images not in (None, num_images):
            raise ValueError(
                f"its run had {saved.num_images} images and this one has {num_images}; give it the "
                "same images, or start in another folder"
            )
        if saved.optimizer is None:
            raise ValueError("it has no optimizer state; published files have none")
        method.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        if saved.scaler:
            scaler.load_state_dict(saved.scaler)
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"the last checkpoint does not fit this configuration: {error}") from error
    if changed:
        what = ", ".join(f"{key} {a!r} -> {b!r}" for key, (a, b) in changed.items())
        logger.warning("resuming under a changed configuration: %s", what)
    return saved.iteration + 1


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
