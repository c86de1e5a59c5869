"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "sgd", "lars", "larc")


def build_optimizer(
    name: str,
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    decay_bias_and_norm: bool = True,
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
        decay_bias_and_norm: whether biases and BatchNorm's parameters are decayed too.
        trust: for "lars" and "larc".

    Raises:
        ValueError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is unknown; choose one of {list(OPTIMIZERS)}")
    together = decay_bias_and_norm and name != "lars"
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
        on_gpu = all(p.is_cuda for p in trained)
        return LARC(groups, lr=lr, momentum=momentum, trust=trust, fused=on_gpu or None)
    for group in groups:
        del group["adapt"]
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)


class LARC(torch.optim.SGD):
    """SGD whose step is scaled, for each tensor, by trust * ||w|| / (||g|| + weight_decay * ||w||).

    LARS (You et al., 2017, equation 6), which NVIDIA calls LARC without clipping. The decay is
    added to the gradient before it is scaled. A tensor is not scaled if its norm, or that of its
    gradient, is zero.

    Args:
        params: groups; one with ``"adapt": False`` is plain SGD (LARS omits 1-D parameters).
        lr: learning rate.
        momentum: of SGD.
        weight_decay: of SGD.
        trust: coefficient.
        fused: of SGD: one kernel, which can skip a step that is not finite (``found_inf``).
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
        self.trust = trust
        # The layer-wise rates need gradients that the loss scaler has unscaled before the step.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Scales the gradients in place, and makes a step of SGD."""
        loss = closure() if closure is not None else None
        decays = []
        for group in self.param_groups:
            decays.append(group["weight_decay"])
            if not group.get("adapt", True):
                continue
            for p in (p for p in group["params"] if p.grad is not None):
                p.grad.copy_(self._scaled(p, p.grad, group["weight_decay"]))
            group["weight_decay"] = 0.0
        super().step()
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return loss

    def _scaled(self, p: Tensor, grad: Tensor, decay: float) -> Tensor:
        weight_norm, grad_norm = p.norm(), grad.norm()
        rate = self.trust * weight_norm / (grad_norm + decay * weight_norm)
        rate = torch.where((weight_norm > 0) & (grad_norm > 0), rate, torch.ones_like(rate))
        return rate * (grad + decay * p)
