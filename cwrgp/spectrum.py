"""How many dimensions features use: the spectrum of their covariance, and ranks read off it.

All functions take features of any stage (encoder output, embedding, whitened output), are batched
over leading dimensions, compute in fp64 and return fp64. All but :func:`numerical_rank` and
:func:`normalized_rank` are differentiable, also where eigenvalues coincide or are 0.

Shapes: n samples, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def covariance_spectrum(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance (X - mean)^T (X - mean) / (n - 1), in decreasing order.

    Healthy: a slow decay. Sick: a cliff, after which eigenvalues are near 0 (Jing et al., ICLR
    2022, section 3). At most n - 1 of them are not 0, so n should exceed D by a multiple.

    Args:
        x: (..., n, D), n > 1.

    Returns:
        (..., D), none negative, in squared units of x. What is within rounding of x, in the dtype
        that it comes in, is 0.

    Raises:
        ValueError: fewer than two samples.
        torch.linalg.LinAlgError: x is not finite.
    """
    stored_eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0  # integers are exact
    x = x.double()
    num_samples, num_channels = x.shape[-2:]
    if num_samples < 2:
        raise ValueError(f"a covariance needs two samples or more, got {num_samples}")
    singular = torch.linalg.svdvals(x - x.mean(-2, keepdim=True))
    # Relative to x and not to the centred x, since centring rounds relative to x. The first term is
    # that of torch.linalg.matrix_rank. The second one bounds the norm of independent rounding
    # errors of the entries of x, eps |x_ij| / 2 at most.
    computed = max(num_samples, num_channels) * torch.finfo(x.dtype).eps
    rounding = max(computed, stored_eps * (num_samples**-0.5 + num_channels**-0.5))
    scale = torch.linalg.matrix_norm(x.detach(), keepdim=True).squeeze(-1)
    singular = singular.masked_fill(singular <= rounding * scale, 0)
    spectrum = singular.square() / (num_samples - 1)
    return torch.nn.functional.pad(spectrum, (0, num_channels - spectrum.shape[-1]))


def numerical_rank(eigenvalues: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """Number of dimensions whose standard deviation exceeds ``tolerance`` times the largest one.

    #{i: l_i > tolerance^2 l_1}, from 0 (all are 0) to D. Healthy: near D, even if a few dimensions
    hold most of the variance, which lowers :func:`effective_rank`. Sick: a fraction of D, a
    dimensional collapse. Weng et al., NeurIPS 2022, section 3, use the rank in this way.

    Args:
        eigenvalues: (..., D), none negative.
        tolerance: of standard deviations, not of variances.

    Returns:
        int64, (...).
    """
    return (eigenvalues > tolerance**2 * eigenvalues.amax(-1, keepdim=True)).sum(-1)


def normalized_rank(eigenvalues: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """:func:`numerical_rank` / D, in [0, 1], comparable between widths.

    Healthy: near 1 (of n samples, near min(1, (n - 1) / D)). Sick: far below.

    Args:
        eigenvalues: (..., D), none negative.
        tolerance: as for :func:`numerical_rank`.
    """
    return numerical_rank(eigenvalues, tolerance=tolerance).double() / eigenvalues.shape[-1]


def stable_rank(x: Tensor) -> Tensor:
    """||X||_F^2 / ||X||_2^2, the sum of the squared singular values over the largest one.

    From 1 (rank one, equal rows included) to min(n, D) (orthogonal columns of equal norm); 0 if x
    is 0. Not centred, as in the source, so a mean that all samples share lowers it. Healthy: tens
    of dimensions. Sick: near 1. Rudelson and Vershynin, J. ACM 2007; Weng et al., NeurIPS 2022.

    Args:
        x: (..., n, D).

    Returns:
        (...).
    """
    x = x.double()
    total = x.square().sum((-2, -1))
    # The largest eigenvalue of the smaller Gram matrix is exact to rounding, unlike the smallest,
    # and takes a fraction of the time of the singular values.
    gram = x @ x.mT if x.shape[-2] < x.shape[-1] else x.mT @ x
    largest = torch.linalg.eigvalsh(gram).amax(-1)
    return total / _where_positive(largest)


def normalized_stable_rank(x: Tensor) -> Tensor:
    """||X||_F^2 / (||X||_2^2 D), :func:`stable_rank` / D, from 1 / D to min(1, n / D); 0 if x is 0.

    Healthy: for whitened output near the upper limit, for embeddings some tenths. Sick: near 1 / D,
    which equal rows have. Weng et al., NeurIPS 2022, section 3.

    Args:
        x: (..., n, D).

    Returns:
        (...).
    """
    return stable_rank(x) / x.shape[-1]


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """exp(-sum_i p_i log p_i), p_i = l_i / sum_j l_j: exp of the entropy of the spectrum.

    From 1 (one dimension, or a complete collapse: all eigenvalues are 0) to D (equal variance in
    all). Healthy: tens. Sick: below 2. Roy and Vetterli, EUSIPCO 2007, for the eigenvalues instead
    of the singular values.

    Args:
        eigenvalues: (..., D), none negative.

    Returns:
        (...).
    """
    eigenvalues = eigenvalues.double()
    p = eigenvalues / _where_positive(eigenvalues.sum(-1, keepdim=True))
    return _exp_entropy(p)


def condition_number(eigenvalues: Tensor) -> Tensor:
    """l_1 / l_D, from 1 to infinity, which a singular covariance has.

    Healthy: near 1 for whitened output, up to 1e6 for embeddings in fp32. Sick: above, where
    inverting the covariance loses all digits. Of n <= D samples it is always infinite.

    Args:
        eigenvalues: (..., D), none negative.

    Returns:
        (...).
    """
    eigenvalues = eigenvalues.double()
    smallest, largest = eigenvalues.amin(-1), eigenvalues.amax(-1)
    ratio = largest / _where_positive(smallest)
    return ratio.masked_fill(smallest <= 0, torch.inf)


def participation_ratio(eigenvalues: Tensor) -> Tensor:
    """(sum_i l_i)^2 / sum_i l_i^2, from 1 (one dimension, or all are 0) to D.

    As :func:`effective_rank`, of which it is a lower bound, with more weight on the largest
    eigenvalues. Healthy: tens. Sick: below 2. Gao et al., bioRxiv 214262, 2017.

    Args:
        eigenvalues: (..., D), none negative.

    Returns:
        (...).
    """
    eigenvalues = eigenvalues.double()
    total = eigenvalues.sum(-1, keepdim=True)
    p = eigenvalues / _where_positive(total)
    inverse = p.square().sum(-1)
    return 1 / inverse.masked_fill(total.squeeze(-1) <= 0, 1)


def rankme(x: Tensor, *, eps: float = 1e-7) -> Tensor:
    """exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j + eps, of the singular values s of x itself.

    From 1 (rank one, or x is 0) to min(n, D), up to eps. Healthy: hundreds for a ResNet's 2048
    channels. Sick: below some tens. Neither centred nor squared, unlike :func:`effective_rank`, so
    small directions count more. Garrido et al., ICML 2023, equation 1, who use n = 25,600.

    Args:
        x: (..., n, D).
        eps: of the paper.

    Returns:
        (...).
    """
    singular = torch.linalg.svdvals(x.double())
    return _exp_entropy(singular / _where_positive(singular.sum(-1, keepdim=True)) + eps)


def _exp_entropy(p: Tensor) -> Tensor:
    # As torch.special.entr, whose gradient at 0 is infinite and becomes NaN in the chain rule.
    return (-p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1).exp()


def _where_positive(x: Tensor) -> Tensor:
    """x, but 1 where it is 0: a denominator whose numerator is 0 as well."""
    return x.masked_fill(x <= 0, 1)
