"""CW-RGP: the loss as a pure function that shows the formula, and a thin module.

Shapes: V views, B samples on this process, D channels of the embedding, N samples in a sub-batch,
S = B // N sub-batches, K draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from cwrgp.losses.base import check_subbatches, full_precision, pair_loss, stack_views
from cwrgp.whitening import check_whitening, smallest_eigenvalue, whiten


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
        num_groups: G; each of the G groups of D // G channels is whitened on its own.
        subbatch_size: N; whitening sees N samples at a time.
        split: int64 (K, B), for each draw an order of the samples, the same for all views; runs of
            N make the sub-batches. None: one draw, the samples in order.
        permutation: int64, broadcastable to (V, K, S, D), the random partition of the channels.
            None: neighbouring channels make a group.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Returns:
        A scalar: the mean over pairs of views, draws and samples.
    """
    h = views.unsqueeze(1) if split is None else views[:, split]  # (V, K, B, D)
    h = h.unflatten(2, (-1, subbatch_size))  # (V, K, S, N, D)
    z = whiten(h, axis="channel", num_groups=num_groups, permutation=permutation, eps=eps)
    return pair_loss(z.flatten(1, 3), normalize=normalize)


@full_precision
def covariance_penalty(views: Tensor) -> Tensor:
    """Sum over views of sum_{i != j} Cov_ij^2 / N, Cov the sample-by-sample covariance over
    channels.

    The optional term of the paper's ImageNet recipe, on the embeddings before whitening.

    Args:
        views: (V, ..., N, D) embeddings; it is averaged over what is between.

    Returns:
        A scalar.
    """
    h = views - views.mean(-1, keepdim=True)
    covariance = h @ h.mT / (h.shape[-1] - 1)  # (V, ..., N, N)
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    penalty = off_diagonal.square().sum((-2, -1)) / h.shape[-2]
    return penalty.reshape(len(views), -1).mean(-1).sum()


class CWRGPLoss(nn.Module):
    """The CW-RGP loss with its randomness: a fresh split and fresh partitions at every call.

    Example::

        loss = CWRGPLoss(num_groups=4, subbatch_size=64)
        loss([projector(encoder(view)) for view in views]).backward()

    Args:
        num_groups: G.
        subbatch_size: N; must divide the batch of this process.
        num_draws: K, redraws of split and partition, averaged.
        random_partition: permute the channels, independently for each view, sub-batch and draw.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.
        covariance_weight: weight of :func:`covariance_penalty` of the sub-batches.
        covariance_epochs: the epoch from which on it is 0, once :meth:`set_progress` tells; 0:
            never.
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
        super().__init__()
        if num_draws < 1:
            raise ValueError(f"num_draws {num_draws} is below 1")
        self.num_groups = num_groups
        self.subbatch_size = subbatch_size
        self.num_draws = num_draws
        self.random_partition = random_partition
        self.normalize = normalize
        self.eps = eps
        self.covariance_weight = covariance_weight
        self.covariance_epochs = covariance_epochs
        self.current_weight = covariance_weight

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Before every step: the covariance penalty ends where its epochs do."""
        over = 0 < self.covariance_epochs <= step // steps_per_epoch
        self.current_weight = 0.0 if over else self.covariance_weight

    def check(self, batch_size: int, num_channels: int) -> None:
        """Says whether batches of this shape can be whitened, before any is computed.

        Args:
            batch_size: samples on one process.
            num_channels: width D of the embedding.

        Raises:
            ValueError: naming the values that would work.
        """
        check_subbatches(batch_size, self.subbatch_size)
        check_whitening(self.subbatch_size, num_channels, num_groups=self.num_groups, eps=self.eps)

    def smallest_eigenvalue(self, views: Tensor) -> Tensor:
        """Of the covariances of sub-batches and groups, cut in order, of embeddings (V, B, D)."""
        h = views.unflatten(1, (-1, self.subbatch_size))
        return smallest_eigenvalue(h, num_groups=self.num_groups, eps=self.eps)

    def forward(
        self, views: Tensor | Sequence[Tensor], *, generator: Generator | None = None
    ) -> Tensor:
        """Computes the loss in fp32 at least, whatever autocast says.

        Args:
            views: (V, B, D), or V tensors of (B, D).
            generator: source of the randomness, on the device of ``views``; None: the default one.

        Returns:
            A scalar.

        Raises:
            ValueError: fewer than two views, or shapes that cannot be whitened.
        """
        h = stack_views(views, "CW-RGP")
        num_views, batch_size, num_channels = h.shape
        self.check(batch_size, num_channels)

        def permutations(*shape: int) -> Tensor:
            # Sorting noise draws all permutations at once, on the device.
            return torch.rand(*shape, generator=generator, device=h.device).argsort(-1)

        partition = (num_views, self.num_draws, batch_size // self.subbatch_size, num_channels)
        split = permutations(self.num_draws, batch_size)
        loss = cwrgp_loss(
            h,
            num_groups=self.num_groups,
            subbatch_size=self.subbatch_size,
            split=split,
            permutation=permutations(*partition) if self.random_partition else None,
            normalize=self.normalize,
            eps=self.eps,
        )
        if self.current_weight:
            # Of sub-batches, as the whitening: the number of processes changes nothing.
            subbatches = h[:, split].unflatten(2, (-1, self.subbatch_size))
            loss = loss + self.current_weight * covariance_penalty(subbatches)
        return loss
