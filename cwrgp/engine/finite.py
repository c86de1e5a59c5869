"""Losses, gradients and weights that are not finite, found before they reach a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from cwrgp.comm import gather, get_world_size


class NonFinite(FloatingPointError):
    """A loss, a gradient or a weight is NaN or infinite.

    Attributes:
        step: the first step in which it was.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class FiniteGuard:
    """Collects the losses and gradients of the steps between two checks.

    On a CPU every step is checked before its update. A GPU is not waited for: the optimizer skips
    the updates (see :attr:`found_inf`), and the error is raised at the next check.

    All processes raise at the same step: the gradients are averages over all processes, and the
    losses are gathered for a check.

    Args:
        device: of losses and gradients.
        at_once: whether to check every step; None: on a CPU.

    Attributes:
        found_inf: float32 scalar on the device: 1 from the first gradient on that was not finite,
            0 before. PyTorch's fused optimizers change nothing where their ``found_inf`` is 1.
    """

    def __init__(self, device: torch.device, *, at_once: bool | None = None) -> None:
        self.at_once = device.type == "cpu" if at_once is None else at_once
        self.found_inf = torch.zeros((), device=device)
        self.clear()

    def clear(self) -> None:
        """Starts a new interval."""
        self._steps: list[int] = []
        self._losses: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def add(self, step: int, loss: Tensor, gradients: Sequence[Tensor]) -> None:
        """Notes a step between its backward pass and its update.

        Args:
            step: its number.
            loss: scalar, of this process.
            gradients: after their average over the processes.

        Raises:
            NonFinite: if every step is checked.
        """
        # The largest absolute value: a sum of squares could overflow.
        largest = get_total_norm(gradients, math.inf) if gradients else torch.zeros_like(loss)
        self._steps.append(step)
        self._losses.append(loss.detach())
        self._gradients.append(largest.detach())
        self.found_inf = torch.maximum(self.found_inf, (~largest.isfinite()).to(self.found_inf))
        if self.at_once:
            # Not by the loss of one of several processes, since a check takes all of them.
            sound = math.isfinite(largest) and (get_world_size() > 1 or math.isfinite(loss))
            if not sound:
                self.mean_loss()

    def mean_loss(self) -> float:
        """Checks the interval, and returns the mean of its losses over all processes.

        Raises:
            NonFinite: one of the losses or gradients is not finite.
        """
        losses = gather(torch.stack(self._losses).unsqueeze(0)).mean(0)
        gradients = torch.stack(self._gradients)
        for step, loss, gradient in zip(
            self._steps, losses.tolist(), gradients.tolist(), strict=True
        ):
            for what, value in (("loss", loss), ("gradient", gradient)):
                if not math.isfinite(value):
                    raise NonFinite(f"the {what} is {value} at iteration {step}", step)
        return float(losses.mean())


def check_weights(module: nn.Module, step: int) -> None:
    """Checks the weights and buffers that a checkpoint would hold, on all processes together.

    Args:
        module: as it would be saved.
        step: the last one.

    Raises:
        NonFinite: on every process, if a tensor of any is not finite.
    """
    tensors = [t for t in module.state_dict().values() if t.is_floating_point()]
    largest = gather(get_total_norm(tensors, math.inf).reshape(1))
    if not bool(largest.isfinite().all()):
        raise NonFinite(f"the weights are not finite after iteration {step}", step)


def check_scale(scaler: torch.amp.GradScaler, step: int) -> None:
    """Checks that the loss scaler still finds a scale at which fp16 gradients are finite.

    Args:
        scaler: waited for, if it is enabled.
        step: the last one.

    Raises:
        NonFinite: its scale has fallen below 1, at which gradients are not scaled at all.
    """
    if scaler.get_scale() < 1:
        raise NonFinite(
            f"the gradient is not finite at iteration {step}, down to a loss scale of "
            f"{scaler.get_scale():g}",
            step,
        )
