"""How far the whitened targets of a fixed batch move when the network is updated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cwrgp.whitening import whiten, whitening_matrix


class Volatility(NamedTuple):
    """Relative changes, means over sub-batches and groups.

    Attributes:
        matrix: |W' - W|_F / |W|_F of the whitening matrix, 0 or above.
        target: |Z' - Z|_F / |Z|_F of the whitened output, from 0 to 2 without shrinkage.

    Neither is defined where a covariance is singular: it is NaN, or a number without meaning.
    """

    matrix: Tensor
    target: Tensor


@torch.no_grad()
def target_volatility(
    before: Tensor,
    after: Tensor,
    *,
    axis: str = "channel",
    method: str = "zca",
    num_groups: int = 1,
    permutation: Tensor | None = None,
    eps: float = 0.0,
    ddof: int = 1,
) -> Volatility:
    """The change of whitening matrix and whitened output between two updates (Weng et al., NeurIPS
    2022, section 3).

    Healthy: the target follows the embedding smoothly and moves by some percent. Sick: about
    sqrt(2), a target that has nothing to do with the last one. Under PCA whitening axes swap and
    change sign as soon as eigenvalues come close.

    Args:
        before: (..., N, D), embeddings of the batch.
        after: of the same samples in the same order after the update, likewise.
        axis: as for :func:`cwrgp.whitening.whiten`, like all that follow.
        method: "zca", "pca" or "cholesky".
        num_groups: G.
        permutation: the same for both, so that it does not count as a change.
        eps: shrinkage.
        ddof: subtracted from the number of observations in the covariance.

    Raises:
        ValueError: different shapes, or as for :func:`cwrgp.whitening.whiten`.
    """
    if before.shape != after.shape:
        raise ValueError(
            f"the same samples are compared: got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    both = torch.stack([before, after]).double()
    options = {"axis": axis, "method": method, "num_groups": num_groups, "eps": eps, "ddof": ddof}
    matrices = whitening_matrix(both, permutation=permutation, **options)  # type: ignore[arg-type]
    targets = whiten(both, permutation=permutation, **options)  # type: ignore[arg-type]
    return Volatility(_relative_change(matrices), _relative_change(targets))


def _relative_change(x: Tensor) -> Tensor:
    """Mean over all matrices of |b - a|_F / |a|_F, of (2, ..., M, K)."""
    old, new = x
    return (torch.linalg.matrix_norm(new - old) / torch.linalg.matrix_norm(old)).mean()
