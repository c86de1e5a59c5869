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
) -> dict[str, Tensor]:
    """Barlow Twins (Zbontar et al., ICML 2021, equations 1 and 2).

    The cross-correlation of two views is an average over the N **samples**.

    Args:
        views: (V, N, D) embeddings.
        off_diagonal: lambda, weight of the off-diagonal correlations.
        scale: factor of the whole loss.
        eps: added to the variances, as in the authors' BatchNorm.

    Returns:
        Scalars, means over the V (V - 1) / 2 pairs of views: ``loss_invariance``, of the diagonal,
        and ``loss_redundancy``, of the off-diagonal correlations, both with their weights.
    """
    num_samples = stack_views(views, "Barlow Twins").shape[1]
    z = views - views.mean(1, keepdim=True)
    z = z / (z.square().mean(1, keepdim=True) + eps).sqrt()
    on, off = [], []
    for a, b in combinations(z, 2):
        c = a.T @ b / num_samples  # (D, D)
        on.append((1 - c.diagonal()).square().sum())
        off.append((c - c.diagonal().diag()).square().sum())
    return {
        "loss_invariance": scale * torch.stack(on).mean(),
        "loss_redundancy": scale * off_diagonal * torch.stack(off).mean(),
    }


class BarlowTwinsLoss(GatheredLoss):
    """:func:`barlow_twins_loss` of the embeddings of all processes."""

    alignment = "loss_invariance"

    def __init__(self, off_diagonal: float = 0.0051, scale: float = 1.0) -> None:
        super().__init__(
            functools.partial(barlow_twins_loss, off_diagonal=off_diagonal, scale=scale)
        )
        self.scale = scale

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """scale D (1 + r), r = 1 / (N - 1), of ``loss_invariance``, up to eps.

        A correlation over N samples that are independent between the views has mean 0 and mean
        square r, whatever the distributions: that is the cosine of two centred vectors, averaged
        over the permutations of one of them. Redundancy tells nothing: embeddings of few dimensions
        have more of it than unrelated ones, also where the views agree.
        """
        if num_channels is None:
            return None
        return self.scale * num_channels * (1 + 1 / (num_samples - 1))
