"""Barlow Twins: the cross-correlation of two views should be the identity.

Shapes: V views, N samples of the global batch, D channels of the embedding.
"""

from __future__ import annotations

import functools
from itertools import combinations

import torch
from torch import Tensor

from cwrgp.losses.base import GatheredLoss, full_precision, stack_views


@full_precision
def barlow_twins_loss(
    views: Tensor, *, off_diagonal: float = 0.0051, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """Barlow Twins (Zbontar et al., ICML 2021, equations 1 and 2).

    The cross-correlation of two views is an average over the N **samples**.

    Args:
        views: (V, N, D) embeddings.
        off_diagonal: lambda, weight of the off-diagonal correlations.
        scale: factor of the whole loss.
        eps: added to the variances, as in the authors' BatchNorm.

    Returns:
        A scalar: the mean over the V (V - 1) / 2 pairs of views.
    """
    num_samples = stack_views(views, "Barlow Twins").shape[1]
    z = views - views.mean(1, keepdim=True)
    z = z / (z.square().mean(1, keepdim=True) + eps).sqrt()
    losses = []
    for a, b in combinations(z, 2):
        c = a.T @ b / num_samples  # (D, D)
        on = (1 - c.diagonal()).square().sum()
        off = (c - c.diagonal().diag()).square().sum()
        losses.append(on + off_diagonal * off)
    return scale * torch.stack(losses).mean()


class BarlowTwinsLoss(GatheredLoss):
    """:func:`barlow_twins_loss` of the embeddings of all processes."""

    def __init__(self, off_diagonal: float = 0.0051, scale: float = 1.0) -> None:
        super().__init__(
            functools.partial(barlow_twins_loss, off_diagonal=off_diagonal, scale=scale)
        )
        self.off_diagonal, self.scale = off_diagonal, scale

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """scale (D (1 + r) + lambda D (D - 1) r), r = 1 / (N - 1), up to eps.

        A correlation over N samples that are independent between the views has mean 0 and mean
        square r, whatever the distributions: that is the cosine of two centred vectors, averaged
        over the permutations of one of them.
        """
        if num_channels is None:
            return None
        square = 1 / (num_samples - 1)
        off = self.off_diagonal * (num_channels - 1) * square
        return self.scale * num_channels * (1 + square + off)
