"""W-MSE and the other whitening losses that the papers compare, selected by axis and method.

Shapes: V views, B samples on this process, D channels of the embedding, N samples in a sub-batch,
S = B // N sub-batches, K draws.
"""

from __future__ import annotations

from torch import Generator, Tensor

from cwrgp.losses.base import full_precision, pair_loss
from cwrgp.losses.subbatch_whitening import SubbatchWhiteningLoss, cut_subbatches
from cwrgp.whitening import whiten

_METHODS = ("cholesky", "zca", "pca", "standardize", "none")


def standardize(x: Tensor, *, axis: str = "batch", eps: float = 0.0) -> Tensor:
    """Whitening without the off-diagonal covariances: mean 0 and variance 1.

    Args:
        x: (..., N, D).
        axis: "batch": of each channel over the samples, as in BatchNorm; "channel": of each sample
            over the channels.
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
        split: int64 (K, B), as for :func:`cut_subbatches`.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Returns:
        A scalar: the mean over pairs of views, draws and samples.
    """
    h = cut_subbatches(views, subbatch_size, split)  # (V, K, S, N, D)
    if method == "standardize":
        h = standardize(h, axis=axis, eps=eps)
    elif method != "none":
        h = whiten(h, axis=axis, method=method, eps=eps)
    return pair_loss(h.flatten(1, 3), normalize=normalize)


class WhiteningLoss(SubbatchWhiteningLoss):
    """:func:`whitening_loss` with fresh sub-batches at every call, cut from the local batch.

    Args:
        axis: "batch" or "channel".
        method: "cholesky", "zca", "pca", "standardize" or "none".
        subbatch_size: N; must divide the batch of this process; 0: the whole batch.
        num_draws: K, how often the sub-batches are drawn in a step; the loss is averaged over the
            draws.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Raises:
        ValueError: an argument is unknown or out of range.
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
        if method not in _METHODS:
            raise ValueError(f"method {method!r} is unknown; choose one of {list(_METHODS)}")
        super().__init__(
            axis=axis,
            num_groups=1,
            subbatch_size=subbatch_size,
            num_draws=num_draws,
            normalize=normalize,
            eps=eps,
        )
        self.method = method
        self.inverts_covariance = method not in ("standardize", "none")

    def compute(self, views: Tensor, split: Tensor, generator: Generator | None) -> Tensor:
        """Passes the arguments on: the split is all that is random here."""
        return whitening_loss(
            views,
            axis=self.axis,
            method=self.method,
            subbatch_size=self.size(views.shape[1]),
            split=split,
            normalize=self.normalize,
            eps=self.eps,
        )


class WMSELoss(WhiteningLoss):
    """W-MSE: Cholesky whitening of the **batch** axis, of sub-batches of N samples.

    N must exceed D; the authors advise N >= 2 D.

    Args:
        subbatch_size: N; must divide the batch of this process; 0: the whole batch.
        num_draws: K, how often the sub-batches are drawn in a step; the loss is averaged over the
            draws.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        subbatch_size: int = 0,
        num_draws: int = 1,
        normalize: bool = True,
        eps: float = 0.0,
    ) -> None:
        super().__init__("batch", "cholesky", subbatch_size, num_draws, normalize, eps)
