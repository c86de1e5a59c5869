"""The paper's analysis: a symmetric whitening loss as two losses with fixed targets."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def asymmetric_losses(
    z1: Tensor, z2: Tensor, whitening: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Each view matches the whitened other one, which gets no gradient (Weng et al., NeurIPS 2022,
    section 3).

    L' = 1/m |Z^_1 - sg(Z^_2)|_F^2 + 1/m |sg(Z^_1) - Z^_2|_F^2, Z^ = whitening(Z). Each term has the
    value of the symmetric loss L = 1/m |Z^_1 - Z^_2|_F^2, and together they have its gradient: the
    first that with respect to Z_1, the second that with respect to Z_2.

    Args:
        z1: (..., m, D), embeddings of the first view.
        z2: of the second view, likewise.
        whitening: of embeddings, such as :func:`cwrgp.whitening.whiten`.

    Returns:
        Both terms, each (...).
    """
    whitened_1, whitened_2 = whitening(z1), whitening(z2)
    return (
        (whitened_1 - whitened_2.detach()).square().sum(-1).mean(-1),
        (whitened_1.detach() - whitened_2).square().sum(-1).mean(-1),
    )
