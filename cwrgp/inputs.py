"""What the losses do with their input before the formula: views, precision, processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from cwrgp.engine.distributed import gather_with_gradient

P = ParamSpec("P")
T = TypeVar("T")


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes fp32; everything else stays what it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(loss: Callable[P, T]) -> Callable[P, T]:
    """Decorates a loss: computed in fp32 at least and outside autocast, whatever is around it.

    Args:
        loss: a function of at least one tensor, all on one device.
    """

    def full(value: Any) -> Any:
        return at_least_float32(value) if isinstance(value, Tensor) else value

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        positional: list[Any] = [full(value) for value in args]
        named: dict[str, Any] = {name: full(value) for name, value in kwargs.items()}
        tensors = [v for v in (*positional, *named.values()) if isinstance(v, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return loss(*positional, **named)

    return wrapped


def stack_views(views: Tensor | Sequence[Tensor], method: str) -> Tensor:
    """Embeddings of V >= 2 views as one tensor (V, B, D).

    Args:
        views: (V, B, D), or V tensors of (B, D).
        method: its name, for the message.

    Raises:
        ValueError: fewer than two views, or views of different shapes.
    """
    shapes = [tuple(view.shape) for view in views]
    if len(shapes) < 2 or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"{method} needs two views or more, all (B, D), got {shapes}")
    return views if isinstance(views, Tensor) else torch.stack(tuple(views))


class GatheredLoss(nn.Module):
    """A loss over the global batch: gathers the embeddings of all processes, with gradient.

    Args:
        loss: of embeddings (..., N, D), N the samples of all processes.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, *embeddings: Tensor) -> Any:
        """The loss of this process's embeddings (..., B, D) together with the others'."""
        return self.loss(*(gather_with_gradient(x, dim=-2) for x in embeddings))
