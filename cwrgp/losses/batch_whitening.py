"""W-MSE, and the other whitening losses that the papers compare: one class, two arguments.

The legend of the shapes: V views, B samples on this process, D channels of the embedding, N
samples in a sub-batch, S = B // N sub-batches, K draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from cwrgp.losses.base import check_subbatches, full_precision, pair_loss, stack_views
from cwrgp.whitening import check_whitening, smallest_eigenvalue, whiten


def standardize(x: Tensor, *, axis: str = "batch", eps: float = 0.0) -> Tensor:
    """Mean 0 and variance 1, of each channel over the samples (BatchNorm) or each sample over the
    channels: whitening without the off-diagonal covariances.

    Args:
        x: (..., N, D).
        axis: "batch" or "channel".
        eps: variance <- (1 - eps) variance + eps.
    """
    dim = -1 if axis == "channel" else -2
    x = x - x.mean(dim, keepdim=True)
    variance = x.square().sum(dim, keepdim=True) / (x.shape[dim] - 1)
    return x / ((1 - eps) * variance + eps).sqrt()


@full_precision
def whitening_loss(
    views: Tensor,
    *,
    axis: str,
    method: str,
    subbatch_size: int,
    split: Tensor | None = None,
    normalize: bool = True,
    eps: float = 0.0,
) -> Tensor:
    """Whitens each view of each sub-batch, then pulls the views of a sample together.

    W-MSE (Ermolov et al., ICML 2021, equations 3 to 6) is ``axis="batch"``,
    ``method="cholesky"``: centre H (N, D) over its samples, S = H^T H / (N - 1) = L L^T,
    z = L^-1 h. Gradients flow to all views and through the whitening.

    Args:
        views: (V, B, D) embeddings.
        axis: "batch": channels are decorrelated; "channel": samples are.
        method: "cholesky", "zca" or "pca"; "standardize": variances only; "none": embeddings as
            they are.
        subbatch_size: N.
        split: int64 (K, B), for each draw an order of the samples, the same for all views. None:
            one draw, the samples in order.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Returns:
        A scalar: the mean over pairs of views, draws and samples.
    """
    h = views.unsqueeze(1) if split is None else views[:, split]  # (V, K, B, D)
    h = h.unflatten(2, (-1, subbatch_size))  # (V, K, S, N, D)
    if method == "standardize":
        h = standardize(h, axis=axis, eps=eps)
    elif method != "none":
        h = whiten(h, axis=axis, method=method, eps=eps)
    return pair_loss(h.flatten(1, 3), normalize=normalize)


class WhiteningLoss(nn.Module):
    """:func:`whitening_loss` with fresh sub-batches at every call, cut from the local batch.

    Args:
        axis: "batch" or "channel".
        method: "cholesky", "zca", "pca", "standardize" or "none".
        subbatch_size: N; must divide the batch of this process; 0: all of it.
        num_draws: K, redraws of the sub-batches, averaged.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.
    """

    def __init__(
        self,
        axis: str,
        method: str,
        subbatch_size: int = 0,
        num_draws: int = 1,
        normalize: bool = True,
        eps: float = 0.0,
    ) -> None:
        super().__init__()
        if num_draws < 1:
            raise ValueError(f"num_draws {num_draws} is below 1")
        self.axis = axis
        self.method = method
        self.subbatch_size = subbatch_size
        self.num_draws = num_draws
        self.normalize = normalize
        self.eps = eps

    @property
    def inverts(self) -> bool:
        """Whether there is a covariance matrix to invert."""
        return self.method not in ("none", "standardize")

    def check(self, batch_size: int, num_channels: int) -> None:
        """Says whether batches of this shape can be whitened, before any is computed.

        Args:
            batch_size: samples on one process.
            num_channels: width D of the embedding.

        Raises:
            ValueError: naming the values that would work.
        """
        size = self.subbatch_size or batch_size
        check_subbatches(batch_size, size)
        if self.inverts:
            check_whitening(size, num_channels, axis=self.axis, eps=self.eps)

    def smallest_eigenvalue(self, views: Tensor) -> Tensor | None:
        """Of the covariances of sub-batches, cut in order, of embeddings (V, B, D)."""
        h = views.unflatten(1, (-1, self.subbatch_size or views.shape[1]))
        return smallest_eigenvalue(h, axis=self.axis, eps=self.eps) if self.inverts else None

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
        h = stack_views(views, type(self).__name__)
        self.check(*h.shape[1:])
        noise = torch.rand(self.num_draws, h.shape[1], generator=generator, device=h.device)
        return whitening_loss(
            h,
            axis=self.axis,
            method=self.method,
            subbatch_size=self.subbatch_size or h.shape[1],
            split=noise.argsort(-1),
            normalize=self.normalize,
            eps=self.eps,
        )


class WMSELoss(WhiteningLoss):
    """W-MSE: Cholesky whitening of the **batch** axis, of sub-batches of N samples.

    N must exceed D; the authors advise N >= 2 D.

    Args:
        subbatch_size: N; must divide the batch of this process; 0: all of it.
        num_draws: K, redraws of the sub-batches, averaged.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.
    """

    def __init__(
        self,
        subbatch_size: int = 0,
        num_draws: int = 1,
        normalize: bool = True,
        eps: float = 0.0,
    ) -> None:
        super().__init__("batch", "cholesky", subbatch_size, num_draws, normalize, eps)
