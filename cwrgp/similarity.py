"""How similar embeddings are to each other: of the same sample, and of different ones.

All functions normalise embeddings to unit length, are batched over leading dimensions and
differentiable, compute in fp64 and return fp64. An embedding of 0 stays 0 and has the cosine 0 with
all others, as in torch.nn.functional.cosine_similarity.

Shapes: n samples, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of a matrix of similarities that are in memory at a time.
_BLOCK = 1024


def alignment(z1: Tensor, z2: Tensor, *, alpha: float = 2) -> Tensor:
    """Mean of |a - b|^alpha over the positive pairs (a, b).

    In [0, 2^alpha]: 0 for equal views of each sample, 2 (with alpha 2) for unrelated ones.
    Healthy: below 1 with a :func:`uniformity` below -2. Sick: 0 with a uniformity of 0 (collapse),
    or near 2 (nothing is shared). Wang and Isola, ICML 2020, equation 6.

    Args:
        z1: (..., n, D).
        z2: of the other views of the same samples, likewise.
        alpha: exponent, 1 or above where a gradient is needed.

    Returns:
        (...).
    """
    # The norm has the gradient 0 where both are equal; that of a square root would be infinite.
    return torch.linalg.vector_norm(_unit(z1) - _unit(z2), dim=-1).pow(alpha).mean(-1)


def uniformity(z: Tensor, *, t: float = 2) -> Tensor:
    """log of the mean of exp(-t |a - b|^2) over the pairs of different samples.

    In [-4 t, 0]: 0 for equal embeddings, about -2 t for a uniform distribution in many dimensions.
    Healthy (t = 2): -2 to -4. Sick: above -1. Wang and Isola, ICML 2020, equation 7.

    Args:
        z: (..., n, D), n > 1.
        t: of the Gaussian potential.

    Returns:
        (...).
    """
    z = _unit(z)
    num_samples = _num_samples(z)
    squared = z.square().sum(-1, keepdim=True)
    sums = []
    for start in range(0, num_samples, _BLOCK):
        rows, rows_squared = (x[..., start : start + _BLOCK, :] for x in (z, squared))
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b; the squares are 1, or 0 for an embedding that is 0.
        exponent = -t * (rows_squared + squared.mT - 2 * rows @ z.mT)
        same = torch.ones_like(exponent, dtype=torch.bool).tril(start).triu(start)
        sums.append(exponent.masked_fill(same, -torch.inf).flatten(-2).logsumexp(-1))
    return torch.stack(sums, -1).logsumexp(-1) - math.log(num_samples * (num_samples - 1))


def positive_cosine(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean cosine of the positive pairs, in [-1, 1]; 1 - alignment / 2.

    Healthy: well above :func:`negative_cosine`. Sick: equal to it. The authors of CW-RGP plot both
    (Weng et al., NeurIPS 2022).

    Args:
        z1: (..., n, D).
        z2: of the other views of the same samples, likewise.

    Returns:
        (...).
    """
    return (_unit(z1) * _unit(z2)).sum(-1).mean(-1)


def negative_cosine(z: Tensor) -> Tensor:
    """Mean cosine of the pairs of different samples, in [-1 / (n - 1), 1].

    Healthy: near 0. Sick: near 1, a collapse; one to 0 itself shows in :func:`feature_std` and
    :func:`uniformity`. Weng et al., NeurIPS 2022: a more whitened output pushes negatives further
    apart, and is a worse representation.

    Args:
        z: (..., n, D), n > 1.

    Returns:
        (...).
    """
    z = _unit(z)
    num_samples = _num_samples(z)
    # |sum_i z_i|^2 has all pairs, and each sample with itself.
    own = z.square().sum((-2, -1))
    return (z.sum(-2).square().sum(-1) - own) / (num_samples * (num_samples - 1))


def feature_std(z: Tensor) -> Tensor:
    """sqrt(D) times the mean over channels of the standard deviation over samples.

    In [0, about 1]: 1 for isotropic, 0 for equal embeddings. Healthy: near 1. Sick: below 0.1.
    Chen and He, CVPR 2021, figure 2, where it is not multiplied by sqrt(D).

    Args:
        z: (..., n, D), n > 1.

    Returns:
        (...).
    """
    z = _unit(z)
    _num_samples(z)
    return z.std(-2).mean(-1) * z.shape[-1] ** 0.5


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z.double(), dim=-1)


def _num_samples(z: Tensor) -> int:
    if z.shape[-2] < 2:
        raise ValueError(f"different samples are compared: two or more, got {z.shape[-2]}")
    return z.shape[-2]
