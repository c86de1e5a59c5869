"""CW-RGP: the loss as a pure function that shows the formula, and a thin module.

Shapes: V views, B samples on this process, D channels of the embedding, N samples in a sub-batch,
S = B // N sub-batches, K draws.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from cwrgp.losses.base import full_precision, pair_loss
from cwrgp.losses.subbatch_whitening import (
    SubbatchWhiteningLoss,
    cut_subbatches,
    random_permutations,
)
from cwrgp.whitening import whiten


@full_precision
def cwrgp_loss(
    views: Tensor,
    *,
    num_groups: int,
    subbatch_size: int,
    split: Tensor | None = None,
    permutation: Tensor | None = None,
    normalize: bool = True,
    eps: float = 0.0,
) -> Tensor:
    """Channel whitening with random group partition (Weng et al., NeurIPS 2022, equations 7 to 9).

    Args:
        views: (V, B, D) embeddings.
        num_groups: G; each of the G groups of D // G channels is whitened separately.
        subbatch_size: N, how many samples are whitened together.
        split: int64 (K, B), as for :func:`cut_subbatches`.
        permutation: int64, broadcastable to (V, K, S, D), the random partition of the channels.
            None: neighbouring channels form a group.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Returns:
        A scalar: the mean over pairs of views, draws and samples.
    """
    h = cut_subbatches(views, subbatch_size, split)  # (V, K, S, N, D)
    z = whiten(h, axis="channel", num_groups=num_groups, permutation=permutation, eps=eps)
    if normalize and eps == 0:
        # Z_g Z_g^T = (C - 1) I for each group, so that all rows of Z have the squared norm
        # G (C - 1) = D - G, and 2 - 2 cos(a, b) = |a - b|^2 / (D - G).
        num_channels = z.shape[-1]
        return num_channels / (num_channels - num_groups) * pair_loss(z, normalize=False)
    return pair_loss(z, normalize=normalize)


@full_precision
def covariance_penalty(views: Tensor) -> Tensor:
    """Sum over views of sum_{i != j} Cov_ij^2 / N, Cov the covariance between samples over the
    channels.

    The optional term of the paper's ImageNet recipe, on the embeddings before whitening.

    Args:
        views: (V, ..., N, D) embeddings; the penalty is averaged over the dimensions in between.

    Returns:
        A scalar.
    """
    h = views - views.mean(-1, keepdim=True)
    covariance = h @ h.mT / (h.shape[-1] - 1)  # (V, ..., N, N)
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    penalty = off_diagonal.square().sum((-2, -1)) / h.shape[-2]
    return penalty.reshape(len(views), -1).mean(-1).sum()


class CWRGPLoss(SubbatchWhiteningLoss):
    """:func:`cwrgp_loss` with a fresh split and fresh partitions at every call.

    Example::

        loss = CWRGPLoss(num_groups=4, subbatch_size=64)
        loss([projector(encoder(view)) for view in views]).backward()

    Args:
        num_groups: G.
        subbatch_size: N; must divide the batch of this process; 0: the whole batch.
        num_draws: K, how often split and partition are drawn in a step; the loss is averaged over
            the draws.
        random_partition: permute the channels, independently for each view, sub-batch and draw.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.
        covariance_weight: weight of :func:`covariance_penalty` of the sub-batches.
        covariance_epochs: the first epoch without the penalty, for callers of
            :meth:`set_progress`; 0: the penalty never ends.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        num_groups: int,
        subbatch_size: int,
        num_draws: int = 1,
        random_partition: bool = True,
        normalize: bool = True,
        eps: float = 0.0,
        covariance_weight: float = 0.0,
        covariance_epochs: int = 0,
    ) -> None:
        super().__init__(
            axis="channel",
            num_groups=num_groups,
            subbatch_size=subbatch_size,
            num_draws=num_draws,
            normalize=normalize,
            eps=eps,
        )
        self.random_partition = random_partition
        self.covariance_weight = covariance_weight
        self.covariance_epochs = covariance_epochs
        self.current_weight = covariance_weight

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Ends the covariance penalty after its epochs."""
        over = 0 < self.covariance_epochs <= step // steps_per_epoch
        self.current_weight = 0.0 if over else self.covariance_weight

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """2 in the cosine form; None with the penalty, which depends on the embedding's scale."""
        if self.current_weight:
            return None
        return super().value_for_unrelated(
            num_samples, num_views=num_views, num_channels=num_channels
        )

    def compute(self, views: Tensor, split: Tensor, generator: Generator | None) -> Tensor:
        """Draws the partitions, and adds the covariance penalty where it has a weight."""
        num_views, batch_size, num_channels = views.shape
        size = self.size(batch_size)
        permutation = None
        if self.random_partition:
            permutation = random_permutations(
                num_views,
                self.num_draws,
                batch_size // size,
                num_channels,
                generator=generator,
                device=views.device,
            )
        loss = cwrgp_loss(
            views,
            num_groups=self.num_groups,
            subbatch_size=size,
            split=split,
            permutation=permutation,
            normalize=self.normalize,
            eps=self.eps,
        )
        if self.current_weight:
            # Of the sub-batches, like the whitening, so that it does not depend on the number of
            # processes.
            subbatches = cut_subbatches(views, size, split)
            loss = loss + self.current_weight * covariance_penalty(subbatches)
        return loss
