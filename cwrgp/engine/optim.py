"""Optimizers by name."""

from __future__ import annotations

import torch
from torch import nn


def build_optimizer(
    name: str,
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    decay_one_dimensional: bool = True,
) -> torch.optim.Optimizer:
    """Adam or SGD over the parameters of a module.

    Args:
        name: "adam" (weight decay as L2 in the gradient, as the paper has it) or "sgd".
        module: whose parameters are trained.
        lr: learning rate; the loop sets it again at every step.
        weight_decay: of the parameters that are decayed.
        momentum: for "sgd".
        decay_one_dimensional: whether biases and BatchNorm's parameters are decayed too.

    Raises:
        ValueError: unknown name.
    """
    decayed = [p for p in module.parameters() if p.ndim > 1 or decay_one_dimensional]
    other = [p for p in module.parameters() if p.ndim <= 1 and not decay_one_dimensional]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    if other:
        groups.append({"params": other, "weight_decay": 0.0})
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    raise ValueError(f"SOLVER.OPTIMIZER {name!r} is unknown; choose 'adam' or 'sgd'")
