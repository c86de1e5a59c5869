"""Whitening as a pure function: centre, group, covariance, inverse square root, whiten.

Nothing here raises because of the values of the embeddings. Where a covariance is singular or not
finite, so is the output, and the training loop's handling of losses that are not finite applies.

Shapes: N samples, D channels, G groups, C = D // G channels in a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cwrgp.inverse_root import MATRIX, WHITEN, covariance, eigh


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half precision to fp32 and returns everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_whitening(
    num_samples: int,
    num_channels: int,
    *,
    axis: str = "channel",
    num_groups: int = 1,
    eps: float = 0.0,
    ddof: int = 1,
) -> None:
    """Checks from the shapes alone that the covariance can have full rank.

    Channel whitening has an N x N covariance over C channels. Centring the rows over all D channels
    reduces its rank by one only if there is a single group. Batch whitening has a C x C covariance
    over N samples, and centring always reduces its rank by one.

    Args:
        num_samples: N.
        num_channels: D.
        axis: as for :func:`whiten`, like all that follow.
        num_groups: G.
        eps: shrinkage.
        ddof: subtracted from the number of observations.

    Raises:
        ValueError: it cannot; the message names the values and what would work.
    """
    if axis not in ("channel", "batch"):
        raise ValueError(f"axis {axis!r} is unknown; choose 'channel' or 'batch'")
    if num_groups < 1 or num_channels % num_groups:
        raise ValueError(
            f"{num_channels} channels do not divide into {num_groups} groups; "
            f"choose a divisor of {num_channels}"
        )
    if not 0 <= eps < 1:
        raise ValueError(f"eps {eps} is outside [0, 1)")
    group = num_channels // num_groups
    if axis == "channel":
        variables, rank = num_samples, group - (num_groups == 1)
        need = "more channels in a group than samples (or as many, with two groups or more)"
    else:
        variables, rank = group, num_samples - 1
        need = "more samples than channels in a group"
    observations = group if axis == "channel" else num_samples
    if observations <= ddof:
        raise ValueError(
            f"{axis} whitening of {num_samples} samples x {num_channels} channels in {num_groups} "
            f"group(s) has {observations} observation(s) a variable; it needs more than {ddof}"
        )
    if rank < variables and eps == 0:
        raise ValueError(
            f"{axis} whitening of {num_samples} samples x {num_channels} channels in {num_groups} "
            f"group(s) of {group} has a singular covariance: it needs {need}, or eps > 0 (try 1e-4)"
        )


def whiten(
    x: Tensor,
    *,
    axis: str = "channel",
    method: str = "zca",
    num_groups: int = 1,
    permutation: Tensor | None = None,
    eps: float = 0.0,
    ddof: int = 1,
) -> Tensor:
    """Whitens embeddings along channels (Weng et al., NeurIPS 2022) or along the batch (Ermolov et
    al., ICML 2021).

    With ``axis="channel"`` every sample is a variable and every channel an observation: afterwards
    the rows of each group are uncorrelated, Z_g Z_g^T / (C - ddof) = I. With ``axis="batch"`` every
    channel is a variable and every sample an observation: Z_g^T Z_g / (N - ddof) = I.

    All leading dimensions and groups go through one batched decomposition. The computation is in
    fp32 at least and outside autocast; gradients flow through x in both its roles.

    Args:
        x: embeddings, (..., N, D).
        axis: "channel" (CW-RGP) or "batch" (W-MSE).
        method: "zca", "pca" (in decreasing order of the eigenvalues) or "cholesky".
        num_groups: G; the channels are cut into G groups that are whitened separately.
        permutation: int64, (..., D) or broadcastable to it: channel ``permutation[j]`` goes to
            place j before the cut, and back after it. None keeps the order.
        eps: S <- (1 - eps) S + eps I.
        ddof: subtracted from the number of observations in the covariance.

    Returns:
        Whitened embeddings, (..., N, D), fp32 for half-precision inputs, otherwise x's dtype. Not
        finite where the covariance is singular or x is not finite; the other sub-batches and groups
        are unaffected.

    Raises:
        ValueError: unknown axis or method, D not divisible, or a covariance that must be singular.
    """
    _check(x, axis, method, num_groups, eps, ddof)
    with torch.autocast(x.device.type, enabled=False):
        h = _centred(x, axis).mT  # (..., D, N): whole rows of it are permuted
        if permutation is not None:
            inverse = permutation.argsort(-1)
            h = _permute_rows(h, permutation, inverse)
        z = WHITEN[method](_observations(h, axis, num_groups), eps, ddof)
        z = (z.mT if axis == "batch" else z).flatten(-3, -2)
        if permutation is not None:
            z = _permute_rows(z, inverse, permutation)
        return z.mT


def whitening_matrix(
    x: Tensor,
    *,
    axis: str = "channel",
    method: str = "zca",
    num_groups: int = 1,
    permutation: Tensor | None = None,
    eps: float = 0.0,
    ddof: int = 1,
) -> Tensor:
    """The matrices W_g that :func:`whiten` whitens with: rows are observations, Z_g = X_g W_g.

    Args:
        x: embeddings, (..., N, D).
        axis: as for :func:`whiten`, like all that follow.
        method: "zca" (S^(-1/2)), "pca" (U L^(-1/2)) or "cholesky" (the transpose of L^-1).
        num_groups: G.
        permutation: int64, (..., D) or broadcastable to it.
        eps: S <- (1 - eps) S + eps I.
        ddof: subtracted from the number of observations in the covariance.

    Returns:
        (..., G, M, M), M = N for the channel axis and D / G for the batch axis.

    Raises:
        ValueError: as for :func:`whiten`.
    """
    _check(x, axis, method, num_groups, eps, ddof)
    with torch.autocast(x.device.type, enabled=False):
        h = _centred(x, axis).mT
        if permutation is not None:
            h = _permute_rows(h, permutation, permutation.argsort(-1))
        s = covariance(_observations(h, axis, num_groups), eps, ddof)
        return MATRIX[method](s, eps)


@torch.no_grad()
def smallest_eigenvalue(
    x: Tensor, *, axis: str = "channel", num_groups: int = 1, eps: float = 0.0, ddof: int = 1
) -> Tensor:
    """The smallest eigenvalue of the covariances that :func:`whiten` inverts.

    Near zero, whitening is ill-conditioned and a larger eps is needed.

    Args:
        x: embeddings, (..., N, D).
        axis: as for :func:`whiten`, like all that follow.
        num_groups: G, of neighbouring channels.
        eps: S <- (1 - eps) S + eps I.
        ddof: subtracted from the number of observations in the covariance.

    Returns:
        A scalar, the smallest of all leading dimensions and groups; NaN where x is not finite.
    """
    with torch.autocast(x.device.type, enabled=False):
        h = _centred(x, axis).mT
        return eigh(covariance(_observations(h, axis, num_groups), eps, ddof))[0].min()


def _check(x: Tensor, axis: str, method: str, num_groups: int, eps: float, ddof: int) -> None:
    if method not in WHITEN:
        raise ValueError(f"whitening method {method!r} is unknown; choose one of {sorted(WHITEN)}")
    check_whitening(*x.shape[-2:], axis=axis, num_groups=num_groups, eps=eps, ddof=ddof)


def _centred(x: Tensor, axis: str) -> Tensor:
    """Subtracts the mean of all D channels or of all N samples from (..., N, D)."""
    x = at_least_float32(x)
    dim = -1 if axis == "channel" else -2
    # As x - x.mean(dim), but the backward pass makes one tensor of the size of x, not three.
    return x + x.sum(dim, keepdim=True) * (-1 / x.shape[dim])


def _observations(h: Tensor, axis: str, num_groups: int) -> Tensor:
    """Cuts (..., D, N) into groups with the observations as rows and the variables as columns:
    (..., G, C, N), for the batch axis (..., G, N, C).
    """
    groups = h.unflatten(-2, (num_groups, -1))
    return groups.mT if axis == "batch" else groups


class _PermuteRows(torch.autograd.Function):
    """Rows of (R, M) in another order. The gradient is copied back row by row, where autograd,
    which does not know that no row is taken twice, would add to a tensor of zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


def _permute_rows(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Permutes the rows of (..., R, M), each of which is copied as a whole."""
    num_rows, width = x.shape[-2:]
    rows = x.reshape(-1, width)
    first = torch.arange(0, len(rows), num_rows, device=x.device).view(*x.shape[:-2], 1)
    return _PermuteRows.apply(rows, (first + order).flatten(), (first + inverse).flatten()).view(
        x.shape
    )
