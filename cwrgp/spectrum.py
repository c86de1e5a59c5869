"""How many dimensions an embedding uses: its spectrum, and numbers that tell a collapse."""

from __future__ import annotations

import torch
from torch import Tensor


def covariance_spectrum(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance over samples, falling.

    Args:
        x: (n, D), n > 1.

    Returns:
        (min(n, D),), in squared units of x.
    """
    x = x.float() - x.float().mean(0)
    return torch.linalg.svdvals(x).square() / (len(x) - 1)


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp of the spectrum's entropy (Roy and Vetterli, 2007): 1 collapsed, D isotropic."""
    p = eigenvalues / eigenvalues.sum()
    return torch.special.entr(p).sum().exp()


def numerical_rank(eigenvalues: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """How many dimensions have a standard deviation above ``tolerance`` times the largest one.

    An embedding that has not collapsed has full rank here even where a few dimensions have most of
    the variance, which :func:`effective_rank` would tell.
    """
    return (eigenvalues > tolerance**2 * eigenvalues.max()).sum()


def stable_rank(x: Tensor) -> Tensor:
    """Normalised stable rank ||Z||_F^2 / (||Z||_2^2 d), in (0, 1] (Weng et al., 2022, section 3).

    Args:
        x: (n, d).
    """
    squares = torch.linalg.svdvals(x.float()).square()
    return squares.sum() / (squares.max() * x.shape[-1])


def embedding_statistics(embeddings: Tensor) -> dict[str, Tensor]:
    """What to watch during training.

    Args:
        embeddings: (n, D) of one view.

    Returns:
        Scalars: "embedding/std", the mean over channels of the standard deviation over samples of
        the L2-normalised embeddings times sqrt(D) (1 when isotropic, 0 when collapsed); and
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
