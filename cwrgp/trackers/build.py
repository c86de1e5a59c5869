"""Trackers by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwrgp.errors import MissingPackage
from cwrgp.trackers.base import OpenTracker, Tracker
from cwrgp.trackers.tensorboard import TensorBoardTracker
from cwrgp.trackers.wandb import WandbTracker

TRACKERS: dict[str, OpenTracker] = {"tensorboard": TensorBoardTracker, "wandb": WandbTracker}
# Trackers of optional packages; the extra of this package has the same name.
_OPTIONAL = ("wandb",)


def check_trackers(names: Sequence[str], key: str = "tracker") -> None:
    """Checks the names of trackers before a run starts.

    Args:
        names: keys of `TRACKERS`.
        key: what the user knows the names by, such as a key of a config, for the error.

    Raises:
        ValueError: an unknown name.
        MissingPackage: the package of a tracker is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(
                f"{key} {name!r} is unknown; choose from {list(TRACKERS)} "
                "(metrics.json is always written)"
            )
        if name in _OPTIONAL and not _is_installed(name):
            raise MissingPackage(
                f"{key} {name!r} needs a package: pip install 'cwrgp[{name}]'", name=name
            )


def open_trackers(
    names: Sequence[str], folder: Path, *, start_step: int, config: Mapping[str, Any]
) -> list[Tracker]:
    """Opens the named trackers; the arguments are those of `OpenTracker`."""
    return [TRACKERS[name](folder, start_step=start_step, config=config) for name in names]


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # A folder of that name, such as the one that W&B makes, counts as a package without origin.
    return spec is not None and spec.origin is not None
