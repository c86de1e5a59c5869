"""All indicators of features at once, as numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cwrgp.similarity import (
    alignment,
    feature_std,
    negative_cosine,
    positive_cosine,
    uniformity,
)
from cwrgp.spectrum import (
    condition_number,
    covariance_spectrum,
    effective_rank,
    normalized_rank,
    normalized_stable_rank,
    numerical_rank,
    participation_ratio,
    rankme,
    stable_rank,
)

Features = Tensor | np.ndarray


def indicators(z1: Features, z2: Features | None = None) -> dict[str, float]:
    """Every indicator of :mod:`cwrgp.spectrum` and :mod:`cwrgp.similarity`.

    Args:
        z1: (n, D) features of any stage, n > 1: a tensor, or an array as of ``np.load``.
        z2: of other views of the same samples, likewise; None: "alignment" and "positive_cosine"
            are left out.

    Returns:
        Name of the function -> value.

    Raises:
        ValueError: fewer than two samples, no channels, values that are not finite, or views of
            different shapes.
    """
    z1 = torch.as_tensor(z1)
    _check(z1)
    eigenvalues = covariance_spectrum(z1)
    values = {
        "numerical_rank": numerical_rank(eigenvalues),
        "normalized_rank": normalized_rank(eigenvalues),
        "stable_rank": stable_rank(z1),
        "normalized_stable_rank": normalized_stable_rank(z1),
        "effective_rank": effective_rank(eigenvalues),
        "condition_number": condition_number(eigenvalues),
        "participation_ratio": participation_ratio(eigenvalues),
        "rankme": rankme(z1),
        "uniformity": uniformity(z1),
        "negative_cosine": negative_cosine(z1),
        "feature_std": feature_std(z1),
    }
    found = {name: float(value) for name, value in values.items()}
    return found if z2 is None else found | pair_indicators(z1, z2)


def pair_indicators(z1: Features, z2: Features) -> dict[str, float]:
    """Those of :func:`indicators` that compare two views of the same samples, (n, D) each.

    Raises:
        ValueError: as for :func:`indicators`.
    """
    z1, z2 = torch.as_tensor(z1), torch.as_tensor(z2)
    _check(z1, z2)
    return {
        "alignment": float(alignment(z1, z2)),
        "positive_cosine": float(positive_cosine(z1, z2)),
    }


def _check(*views: Tensor) -> None:
    shapes = [tuple(z.shape) for z in views]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        raise ValueError(f"indicators need features (n, D), alike for both views, got {shapes}")
    for z in views:
        if not (finite := torch.isfinite(z).all(1)).all():
            bad = int((~finite).sum())
            raise ValueError(f"features of {bad} of {len(z)} samples are NaN or infinite")
