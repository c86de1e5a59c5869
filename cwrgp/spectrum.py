"""How many dimensions an embedding uses: its spectrum, and statistics that show a collapse.

All of them are 0, not NaN, where there is no variance at all.
"""

from __future__ import annotations

import torch
from torch import Tensor


def covariance_spectrum(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance over samples, in decreasing order.

    Args:
        x: (n, D), n > 1.

    Returns:
        (min(n, D),), in squared units of x.
    """
    x = x.float() - x.float().mean(0)
    return torch.linalg.svdvals(x).square() / (len(x) - 1)


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp of the entropy of the spectrum (Roy and Vetterli, EUSIPCO 2007).

    Args:
        eigenvalues: (D,), none negative.

    Returns:
        A scalar from 1, one dimension, to D, equal variance in all; 0 if all eigenvalues are 0.
    """
    total = eigenvalues.sum()
    p = eigenvalues / total.clamp_min(torch.finfo(total.dtype).tiny)
    return torch.special.entr(p).sum().exp() * (total > 0)


def numerical_rank(eigenvalues: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """Number of dimensions whose standard deviation exceeds ``tolerance`` times the largest one.

    An embedding that has not collapsed has full numerical rank even if a few dimensions hold most
    of the variance, which lowers :func:`effective_rank`.

    Args:
        eigenvalues: (D,), none negative.
        tolerance: of standard deviations, not of variances.

    Returns:
        An integer from 1 to D; 0 if all eigenvalues are 0.
    """
    return (eigenvalues > tolerance**2 * eigenvalues.max()).sum()


def stable_rank(x: Tensor) -> Tensor:
    """Normalised stable rank ||Z||_F^2 / (||Z||_2^2 d) (Weng et al., NeurIPS 2022, section 3).

    Args:
        x: (n, d), not centred.

    Returns:
        A scalar in (0, 1]; 0 if x is 0. Equal rows have 1 / d.
    """
    squares = torch.linalg.svdvals(x.float()).square()
    largest = squares.max().clamp_min(torch.finfo(squares.dtype).tiny)
    return squares.sum() / (largest * x.shape[-1])


def embedding_statistics(embeddings: Tensor) -> dict[str, Tensor]:
    """Statistics to monitor during training.

    Args:
        embeddings: (n, D) of one view, n > 1.

    Returns:
        Scalars: "embedding/std", sqrt(D) times the mean over channels of the standard deviation
        over samples of the L2-normalised embeddings (1 when isotropic, 0 when collapsed); and
        "embedding/effective_rank", "embedding/numerical_rank", "embedding/stable_rank".
    """
    normalized = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    spectrum = covariance_spectrum(embeddings)
    return {
        "embedding/std": normalized.std(0).mean() * embeddings.shape[-1] ** 0.5,
        "embedding/effective_rank": effective_rank(spectrum),
        "embedding/numerical_rank": numerical_rank(spectrum),
        "embedding/stable_rank": stable_rank(embeddings),
    }
