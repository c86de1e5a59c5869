"""Whitening as a pure function: centre, group, covariance, inverse square root, whiten.

Nothing here raises because of the values of the embeddings. Where a covariance is singular or not
finite, so is the output, and the training loop's handling of losses that are not finite applies.

Shapes: N samples, D channels, G groups, C = D // G channels in a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half precision to fp32 and returns everything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _eigh(s: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and -vectors of a batch (..., M, M); NaN for the matrices that are not finite.

    torch.linalg.eigh raises for those, depending on size and device, and then has no result for the
    rest of the batch.
    """
    finite = torch.isfinite(s).all(-1, keepdim=True).all(-2, keepdim=True)
    identity = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    try:
        eigenvalues, u = torch.linalg.eigh(torch.where(finite, s, identity))
    except torch.linalg.LinAlgError:  # the iteration did not converge
        return torch.full_like(s[..., 0], torch.nan), torch.full_like(s, torch.nan)
    return eigenvalues.masked_fill(~finite.squeeze(-1), torch.nan), u


class _InverseSqrt(torch.autograd.Function):
    """S^(-1/2) with the closed-form gradient, which has no 1 / (l_i - l_j) terms.

    Differentiating S^(1/2) S^(1/2) = S in the eigenbasis of S gives
    K_ij = -1 / (sqrt(l_i) sqrt(l_j) (sqrt(l_i) + sqrt(l_j))): finite for all l > 0, equal ones
    included.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        eigenvalues, u = _eigh(s)
        root = eigenvalues.sqrt()
        ctx.save_for_backward(root, u)
        return (u / root.unsqueeze(-2)) @ u.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        root, u = ctx.saved_tensors
        grad = (grad + grad.mT) / 2
        a, b = root.unsqueeze(-1), root.unsqueeze(-2)
        k = -1 / (a * b * (a + b))
        return u @ (k * (u.mT @ grad @ u)) @ u.mT


def inverse_sqrt(s: Tensor) -> Tensor:
    """Symmetric (ZCA) inverse square root of a batch of matrices, by one batched
    eigendecomposition.

    Args:
        s: symmetric positive definite, (..., M, M), fp32 or fp64.

    Returns:
        S^(-1/2), (..., M, M). Not finite for matrices that are not finite or have a computed
        eigenvalue <= 0. (Rounding may leave a zero eigenvalue slightly above 0.)
    """
    return _InverseSqrt.apply(s)


def _zca(s: Tensor, x: Tensor) -> Tensor:
    return inverse_sqrt(s) @ x


def _pca(s: Tensor, x: Tensor) -> Tensor:
    # This uses the eigenvectors themselves, whose gradient does have 1 / (l_i - l_j) terms. They
    # and the order of the axes, which changes from batch to batch, are the paper's objections to
    # PCA whitening.
    eigenvalues, u = _eigh(s)
    return (u * eigenvalues.rsqrt().unsqueeze(-2)).flip(-1).mT @ x


def _cholesky(s: Tensor, x: Tensor) -> Tensor:
    root, failed = torch.linalg.cholesky_ex(s)  # torch.linalg.cholesky raises for the whole batch
    root = root.masked_fill((failed != 0)[..., None, None], torch.nan)
    return torch.linalg.solve_triangular(root, x, upper=False)


_METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zca": _zca,
    "pca": _pca,
    "cholesky": _cholesky,
}


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
    if method not in _METHODS:
        raise ValueError(
            f"whitening method {method!r} is unknown; choose one of {sorted(_METHODS)}"
        )
    num_samples, num_channels = x.shape[-2:]
    check_whitening(num_samples, num_channels, axis=axis, num_groups=num_groups, eps=eps, ddof=ddof)

    with torch.autocast(x.device.type, enabled=False):
        groups = _grouped(x, axis, num_groups, permutation)
        z = _METHODS[method](_covariance(groups, eps, ddof), groups)
        if axis == "batch":
            z = z.mT
        z = z.movedim(-3, -2).flatten(-2)  # (..., N, D)
        return z if permutation is None else _take_channels(z, permutation.argsort(-1))


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
        s = _covariance(_grouped(x, axis, num_groups, None), eps, ddof)
        return _eigh(s)[0].min()


def _grouped(x: Tensor, axis: str, num_groups: int, permutation: Tensor | None) -> Tensor:
    """Centred groups with the variables as rows: (..., G, N, C), for the batch axis (..., G, C, N).

    The centre is that of all D channels or of all N samples.
    """
    h = at_least_float32(x)
    h = h - h.mean(dim=-1 if axis == "channel" else -2, keepdim=True)
    if permutation is not None:
        h = _take_channels(h, permutation)
    groups = h.unflatten(-1, (num_groups, -1)).movedim(-2, -3)
    return groups.mT if axis == "batch" else groups


def _covariance(groups: Tensor, eps: float, ddof: int) -> Tensor:
    s = groups @ groups.mT / (groups.shape[-1] - ddof)
    if eps == 0:
        return s
    return torch.lerp(s, torch.eye(s.shape[-1], dtype=s.dtype, device=s.device), eps)


def _take_channels(x: Tensor, permutation: Tensor) -> Tensor:
    return x.gather(-1, permutation.unsqueeze(-2).expand(x.shape))
