"""Optimizers by name."""

from __future__ import annotations

import torch
from torch import nn

from cwrgp.engine.larc import LARC

OPTIMIZERS = ("adam", "sgd", "lars", "larc")


def build_optimizer(
    name: str,
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    decay_one_dimensional: bool = True,
    trust: float = 0.001,
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters of a module.

    Args:
        name: "adam" (weight decay as L2 in the gradient, as the paper has it), "sgd", "larc" (SGD
            with layer-wise rates) or "lars" (the same, but 1-D parameters get neither layer-wise
            rates nor decay).
        module: whose parameters are trained; those without gradient (momentum networks) are not.
        lr: learning rate; the loop sets it again at every step.
        weight_decay: of the parameters that are decayed.
        momentum: for all but "adam".
        decay_one_dimensional: whether biases and BatchNorm's parameters are decayed too.
        trust: for "lars" and "larc".

    Raises:
        ValueError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER {name!r} is unknown; choose one of {list(OPTIMIZERS)}")
    together = decay_one_dimensional and name != "lars"
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if p.ndim > 1 or together],
            "weight_decay": weight_decay,
            "adapt": True,
        },
        {
            "params": [p for p in trained if p.ndim <= 1 and not together],
            "weight_decay": 0.0,
            "adapt": name != "lars",
        },
    ]
    groups = [group for group in groups if group["params"]]
    if name in ("lars", "larc"):
        return LARC(groups, lr=lr, momentum=momentum, trust=trust)
    for group in groups:
        del group["adapt"]
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
