"""Inverse square roots of covariances, and whitening of observations by them.

By the symmetric root (ZCA) with its closed-form gradient, the eigenvectors (PCA), or Cholesky's
factor. Nothing here raises because of the values: where a covariance is singular or not finite, the
result is not finite. Shrinkage prevents that for the first two roots at any scale; Cholesky's
factor needs an eps well above the rounding error of the largest eigenvalue.

Shapes: O observations of M variables, (..., O, M), centred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def covariance(x: Tensor, eps: float, ddof: int) -> Tensor:
    """(1 - eps) X^T X / (O - ddof) + eps I.

    Args:
        x: (..., O, M).
        eps: shrinkage towards the identity.
        ddof: subtracted from O.

    Returns:
        (..., M, M).
    """
    s = x.mT @ x / (x.shape[-2] - ddof)
    if eps == 0:
        return s
    return torch.lerp(s, torch.eye(s.shape[-1], dtype=s.dtype, device=s.device), eps)


def eigh(s: Tensor) -> tuple[Tensor, Tensor]:
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


def _root_and_vectors(s: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """l^(-1/2) and U of S = U diag(l) U^T.

    No exact eigenvalue of a covariance that was shrunk by eps is below eps. A computed one may be,
    and even below 0: its error grows with the largest eigenvalue (1e-4 at 600, in fp32).
    """
    eigenvalues, u = eigh(s)
    return (eigenvalues.clamp(min=eps) if eps > 0 else eigenvalues).rsqrt(), u


def _inverse_sqrt(s: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """W = S^(-1/2), and what :func:`_inverse_sqrt_gradient` needs: q and V.

    With S = U diag(l) U^T these are q = l^(-1/2), the eigenvalues of W, and V = U diag(q).
    """
    q, u = _root_and_vectors(s, eps)
    v = u * q.unsqueeze(-2)
    return v @ u.mT, q, v


def _inverse_sqrt_gradient(grad: Tensor, q: Tensor, v: Tensor) -> Tensor:
    """dS from dW for W = S^(-1/2), with q and V of :func:`_inverse_sqrt`.

    Differentiating W S W = I in the eigenbasis of S gives, for a symmetric dW,
    dS = -V M V^T with M_ij = (V^T dW V)_ij / (q_i + q_j): finite for all l > 0, equal ones
    included. dW is symmetrised first.
    """
    m = v.mT @ (grad + grad.mT) @ v
    return v @ m.div_(-2 * (q.unsqueeze(-1) + q.unsqueeze(-2))) @ v.mT


def _refuse_second_derivative() -> None:
    """Called in a backward pass. once_differentiable would not do: torch.autograd.grad passes its
    error by and returns a second derivative without this function's part.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("ZCA whitening has no second derivative; use create_graph=False")


class _InverseSqrt(torch.autograd.Function):
    """S^(-1/2) with the closed-form gradient, which has no 1 / (l_i - l_j) terms."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, eps: float) -> Tensor:
        w, *factors = _inverse_sqrt(s, eps)
        ctx.save_for_backward(*factors)
        return w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        _refuse_second_derivative()
        return _inverse_sqrt_gradient(grad, *ctx.saved_tensors), None


class _ZCA(torch.autograd.Function):
    """Z = X W with W = S^(-1/2) and S = (1 - eps) X^T X / (O - ddof) + eps I.

    The gradient is dX = dZ W + 2 (1 - eps) / (O - ddof) X dS, where dS follows from dW = X^T dZ.
    Autograd would add the two terms of d(X^T X) = dX^T X + X^T dX by two products with X, since it
    does not know that dS is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, ddof: int) -> Tensor:
        w, *factors = _inverse_sqrt(covariance(x, eps, ddof), eps)
        ctx.save_for_backward(x, w, *factors)
        ctx.scale = 2 * (1 - eps) / (x.shape[-2] - ddof)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        _refuse_second_derivative()
        x, w, *factors = ctx.saved_tensors
        grad_s = _inverse_sqrt_gradient(x.mT @ grad, *factors)
        x = x.reshape(-1, *x.shape[-2:])
        grad_x = (grad @ w).view(x.shape)
        grad_x.baddbmm_(x, grad_s.view(-1, *grad_s.shape[-2:]), alpha=ctx.scale)
        return grad_x.view(grad.shape), None, None


def inverse_sqrt(s: Tensor, eps: float = 0.0) -> Tensor:
    """Symmetric (ZCA) inverse square root of a batch of matrices, by one batched
    eigendecomposition.

    Args:
        s: symmetric positive definite, (..., M, M), fp32 or fp64.
        eps: of :func:`covariance`. No exact eigenvalue is below it; computed ones are raised to it.

    Returns:
        S^(-1/2), (..., M, M). Not finite for matrices that are not finite or, with eps 0, have a
        computed eigenvalue <= 0. (Rounding may leave a zero eigenvalue slightly above 0.)
    """
    return _InverseSqrt.apply(s, eps)


def _zca(x: Tensor, eps: float, ddof: int) -> Tensor:
    return _ZCA.apply(x, eps, ddof)


def _pca_matrix(s: Tensor, eps: float) -> Tensor:
    # This uses the eigenvectors themselves, whose gradient does have 1 / (l_i - l_j) terms. They
    # and the order of the axes, which changes from batch to batch, are the paper's objections to
    # PCA whitening.
    q, u = _root_and_vectors(s, eps)
    return (u * q.unsqueeze(-2)).flip(-1)


def _pca(x: Tensor, eps: float, ddof: int) -> Tensor:
    return x @ _pca_matrix(covariance(x, eps, ddof), eps)


def _cholesky_root(s: Tensor) -> Tensor:
    # torch.linalg.cholesky raises for the whole batch
    root, failed = torch.linalg.cholesky_ex(s)
    return root.masked_fill((failed != 0)[..., None, None], torch.nan)


def _cholesky(x: Tensor, eps: float, ddof: int) -> Tensor:
    root = _cholesky_root(covariance(x, eps, ddof))
    return torch.linalg.solve_triangular(root, x.mT, upper=False).mT


def _cholesky_matrix(s: Tensor, _: float) -> Tensor:
    identity = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    return torch.linalg.solve_triangular(_cholesky_root(s), identity, upper=False).mT


# Functions of (..., O, M), O observations of M variables, and of eps and ddof.
WHITEN: dict[str, Callable[[Tensor, float, int], Tensor]] = {
    "zca": _zca,
    "pca": _pca,
    "cholesky": _cholesky,
}

# The same as functions of the covariance and of eps: W, by which the observations are multiplied.
MATRIX: dict[str, Callable[[Tensor, float], Tensor]] = {
    "zca": inverse_sqrt,
    "pca": _pca_matrix,
    "cholesky": _cholesky_matrix,
}
