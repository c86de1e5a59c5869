"""What the losses share: precision, views, pairs of views, samples of all processes.

Shapes: V views, B samples on this process, N samples of the global batch, D channels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwrgp.comm import gather_with_gradient

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


def pair_loss(z: Tensor, *, normalize: bool = True) -> Tensor:
    """Mean distance of all V (V - 1) / 2 pairs of views; gradients flow to both sides of each pair.

    Args:
        z: (V, M, D) embeddings of the same M samples.
        normalize: 2 - 2 cos(a, b), averaged over samples; otherwise the mean squared error.

    Returns:
        A scalar.
    """
    if normalize:
        z = F.normalize(z, dim=-1)
    losses = [
        2 - 2 * (a * b).sum(-1).mean() if normalize else F.mse_loss(a, b)
        for a, b in combinations(z, 2)
    ]
    return torch.stack(losses).mean()


def check_subbatches(batch_size: int, subbatch_size: int) -> None:
    """Says whether the batch of a process can be cut into sub-batches.

    Raises:
        ValueError: naming the sizes that would work.
    """
    if batch_size < 2:
        raise ValueError(f"a batch of {batch_size} sample(s) per process cannot be whitened")
    if subbatch_size < 1 or batch_size % subbatch_size:
        divisors = [n for n in range(2, batch_size + 1) if batch_size % n == 0]
        raise ValueError(
            f"a batch of {batch_size} samples per process does not divide into sub-batches of "
            f"{subbatch_size}; sub-batches of {', '.join(map(str, divisors))} would"
        )


def mean_of_different_views(x: Tensor) -> Tensor:
    """The mean of x (V, V, N) over pairs i != j of views; indexing by a mask would wait for the
    GPU."""
    num_views, _, num_samples = x.shape
    same = torch.eye(num_views, dtype=torch.bool, device=x.device).unsqueeze(-1)
    return x.masked_fill(same, 0).sum() / (num_views * (num_views - 1) * num_samples)
