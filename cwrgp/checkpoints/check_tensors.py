"""Checks that tensors can be those of a trained network: errors and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check_kind(key: str, value: Any) -> Tensor:
    """Returns the tensor that a key of a checkpoint holds.

    Raises:
        ValueError: it is not a dense floating-point tensor of 16 bits or more; names the key.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{key!r} is a {type(value).__name__}, not a tensor")
    if value.is_meta or value.layout is not torch.strided:
        raise ValueError(f"{key!r} has no plain values (layout {value.layout}, {value.device})")
    if key.endswith("num_batches_tracked"):
        return value
    if not value.is_floating_point():
        raise ValueError(f"{key!r} has dtype {value.dtype}, not a floating-point one")
    if value.element_size() < 2:
        raise ValueError(f"{key!r} has dtype {value.dtype}; 8 bits are too few for a network")
    return value


def check_values(key: str, tensor: Tensor) -> None:
    """Checks that these can be values of a trained network.

    Raises:
        ValueError: NaN or Inf, a negative variance, or a convolution whose values are all equal.
            The message names the key.
    """
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{key!r} holds NaN or Inf: the training diverged, or the file is damaged")
    if key.endswith("running_var") and (tensor < 0).any():
        raise ValueError(f"{key!r} holds a negative variance")
    if tensor.ndim == 4 and tensor.numel() > 1 and tensor.min() == tensor.max():
        raise ValueError(f"{key!r} has the same value everywhere, which no training produces")


def describe_untrained(state: Mapping[str, Tensor]) -> list[str]:
    """Warnings about BatchNorm layers that were never trained, or whose output has collapsed.

    Args:
        state: tensors under torchvision's names.
    """
    means = [name for name in state if name.endswith(".running_mean")]
    untouched = [
        name
        for name in means
        if not state[name].any() and _is_one(state[name.replace("running_mean", "running_var")])
    ]
    dead = [name for name in state if name.endswith(".running_var") and not state[name].any()]
    gains = [name.replace("running_mean", "weight") for name in means]
    silent = [name for name in gains if not state[name].any()]
    warnings = []
    if silent:
        warnings.append(
            f"{len(silent)} BatchNorm layers multiply all channels by 0, first {silent[0]!r}: their"
            " blocks add nothing, as before any training"
        )
    if untouched:
        warnings.append(
            f"the statistics of {len(untouched)} of {len(means)} BatchNorm layers were never"
            f" updated (mean 0, variance 1), first {untouched[0]!r}: was this network trained?"
        )
    if dead:
        warnings.append(
            f"{len(dead)} BatchNorm layers have variance 0 in all channels, the first is"
            f" {dead[0]!r}: the network has collapsed there"
        )
    return warnings


def _is_one(tensor: Tensor) -> bool:
    return bool((tensor == 1).all())
