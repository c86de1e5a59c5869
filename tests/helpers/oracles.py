"""What tests that hold a loss against an oracle share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of two vectors."""
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def draw_views(num_views: int, num_samples: int, num_channels: int, seed: int = 0) -> Tensor:
    """Correlated views (V, N, D) in double precision, with gradient."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_views, num_samples, num_channels)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    common = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    return (0.7 * noise + common + 0.3).requires_grad_()


def assert_same_value_and_gradient(
    loss: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Tensor], views: Tensor
) -> None:
    """To 1e-9 of the norm, for each view on its own, whose gradient must not vanish."""
    got, expected = loss(views), oracle(views)
    assert abs(got - expected) < 1e-9 * abs(expected), (got, expected)
    (gradient,) = torch.autograd.grad(got, views)
    (expected_gradient,) = torch.autograd.grad(expected, views)
    for a, b in zip(gradient, expected_gradient, strict=True):
        assert b.norm() > 1e-6
        assert (a - b).norm() < 1e-9 * b.norm()
