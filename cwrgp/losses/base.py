"""What all losses share: their interface, full precision, views, pairs of views, gathering.

Shapes: V views, B samples on this process, N samples of the global batch, D channels of the
embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwrgp.comm import gather_with_gradient
from cwrgp.volatility import Volatility
from cwrgp.whitening import at_least_float32

P = ParamSpec("P")
T = TypeVar("T")


class Loss(nn.Module):
    """Base class of the losses: what a training loop may ask of any of them.

    Every hook has a default, so a subclass overrides only those that apply to it.

    Attributes:
        alignment: name of the part that compares views, for a loss of several named parts.
        inverts_covariance: whether the loss whitens by the inverse root of a covariance.
    """

    alignment = ""
    inverts_covariance = False

    @property
    def needs_full_rank(self) -> bool:
        """Whether the loss is defined for embeddings (n, D) of rank D only."""
        return False

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Called before every step, for losses that change in the course of a run.

        Args:
            step: the step that comes next, from 0.
            total_steps: steps in the run.
            steps_per_epoch: steps in an epoch.
        """

    def check(self, batch_size: int, num_channels: int) -> None:
        """Checks, before training, that the loss is defined for batches of this shape.

        Args:
            batch_size: samples on one process.
            num_channels: width D of the embedding.

        Raises:
            ValueError: it is not defined; the message names values that work.
        """

    def smallest_eigenvalue(self, views: Tensor) -> Tensor | None:
        """The smallest eigenvalue of the covariances that the loss inverts.

        Args:
            views: (V, B, D) embeddings.

        Returns:
            A scalar; None where the loss inverts no covariance.
        """
        return None

    def target_volatility(self, before: Tensor, after: Tensor) -> Volatility | None:
        """How far the whitened targets of a batch move when the network is updated.

        Args:
            before: (N, D), embeddings of samples that can be whitened together.
            after: of the same samples after the update, likewise.

        Returns:
            See :func:`cwrgp.volatility.target_volatility`; None where the loss inverts no
            covariance.
        """
        return None

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """The value of the loss when the views of a sample have nothing in common.

        That is its expectation for embeddings that are independent of each other and symmetric
        about zero. A run whose loss stays there has learned nothing.

        Args:
            num_samples: N, samples of the global batch.
            num_views: V.
            num_channels: D; None: not known.

        Returns:
            The value, for a loss of several parts that of :attr:`alignment`; None where it depends
            on more than N, V and D, such as the scale of the embedding.
        """
        return None

    def value_for_aligned(self, num_samples: int, *, num_views: int = 2) -> float:
        """The value where the views of a sample are equal and different samples are orthogonal.

        Args:
            num_samples: N, samples of the global batch.
            num_views: V.

        Returns:
            The value of what :meth:`value_for_unrelated` is of; 0 for most losses.
        """
        return 0.0


def full_precision(loss: Callable[P, T]) -> Callable[P, T]:
    """Decorates a loss: it is computed in fp32 at least and outside autocast.

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
    """Stacks the embeddings of V >= 2 views into one tensor (V, B, D).

    Args:
        views: (V, B, D), or V tensors of (B, D).
        method: its name, for the error message.

    Raises:
        ValueError: fewer than two views, or views of different shapes.
    """
    shapes = [tuple(view.shape) for view in views]
    if len(shapes) < 2 or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"{method} needs two views or more, all (B, D), got {shapes}")
    return views if isinstance(views, Tensor) else torch.stack(tuple(views))


def pair_loss(z: Tensor, *, normalize: bool = True) -> Tensor:
    """Mean distance over all V (V - 1) / 2 pairs of views; both views of a pair get a gradient.

    Args:
        z: (V, ..., D) embeddings of the same samples.
        normalize: 2 - 2 cos(a, b), averaged over samples; otherwise the mean squared error.

    Returns:
        A scalar.
    """
    if not normalize:
        return _mean_squared_error_of_pairs(z)
    z = F.normalize(z, dim=-1)
    losses = [2 - 2 * (a * b).sum(-1).mean() for a, b in combinations(z, 2)]
    return torch.stack(losses).mean()


def _mean_squared_error_of_pairs(z: Tensor) -> Tensor:
    """The pairs' distances from each other, from the views' distances to their mean m.

    Since sum_{a<b} |a - b|^2 = V sum_a |a - m|^2, the mean over pairs is 2 V / (V - 1) times the
    mean over views. The latter is stationary in m, so that m needs no gradient.
    """
    num_views = len(z)
    mean = z.detach().mean(0).expand_as(z)
    return 2 * num_views / (num_views - 1) * F.mse_loss(z, mean)


def mean_of_different_views(x: Tensor) -> Tensor:
    """The mean of x (V, V, N) over the ordered pairs of views i != j, and over N.

    The others are masked out, since indexing with one would synchronise with the GPU.
    """
    num_views, _, num_samples = x.shape
    same = torch.eye(num_views, dtype=torch.bool, device=x.device).unsqueeze(-1)
    return x.masked_fill(same, 0).sum() / (num_views * (num_views - 1) * num_samples)


class GatheredLoss(Loss):
    """A loss over the global batch: gathers the embeddings of all processes, with gradient.

    Args:
        loss: function of embeddings (..., N, D), N the samples of all processes.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, *embeddings: Tensor) -> Any:
        """Computes the loss of the embeddings (..., B, D) of all processes."""
        return self.loss(*(gather_with_gradient(x, dim=-2) for x in embeddings))
