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
        the L2-normalised embeddings times sqrt(D) (1 when isotropic, 0 when collapsed), and
        "embedding/effective_rank".
    """
    normalized = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    return {
        "embedding/std": normalized.std(0).mean() * embeddings.shape[-1] ** 0.5,
        "embedding/effective_rank": effective_rank(covariance_spectrum(embeddings)),
    }
