"""Alignment, uniformity, cosines and standard deviation in closed form, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

import cwrgp.similarity
from cwrgp.indicators import indicators
from cwrgp.similarity import (
    alignment,
    feature_std,
    negative_cosine,
    positive_cosine,
    uniformity,
)

OF_PAIRS = (alignment, positive_cosine)
OF_SAMPLES = (uniformity, negative_cosine, feature_std)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(got: torch.Tensor, expected: float) -> bool:
    assert got.dtype == torch.float64
    return math.isclose(got.item(), expected, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_orthogonal_samples(scale):
    """The rows of an identity have the cosine 0 and the squared distance 2."""
    z = scale * torch.eye(6)
    other = z.roll(1, 0)
    assert close(positive_cosine(z, z), 1) and close(alignment(z, z), 0)
    assert close(positive_cosine(z, other), 0) and close(alignment(z, other), 2)
    assert close(alignment(z, other, alpha=1), math.sqrt(2)) and close(alignment(z, -z), 4)
    assert close(negative_cosine(z), 0)
    assert close(uniformity(z), -4) and close(uniformity(z, t=3), -6)
    assert close(feature_std(z), 1)  # of 0 and one 1 in n = D places: sqrt(D) sqrt(1 / D)


def test_equal_samples_are_a_collapse():
    z = torch.full((5, 3), 0.1)
    assert close(negative_cosine(z), 1) and close(uniformity(z), 0)
    assert feature_std(z) < 1e-12
    zero = torch.zeros(5, 3)
    assert close(negative_cosine(zero), 0) and close(feature_std(zero), 0)
    assert close(uniformity(zero), 0)
    some = torch.tensor([[3.0, 4, 0], [0, 0, 0], [0, 0, 0]])  # two pairs at a distance of 1
    assert close(uniformity(some), math.log((1 + 2 * math.exp(-2)) / 3))


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 3])
def test_alignment_has_a_gradient_where_views_are_equal(alpha):
    a, b = draw(2, 5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(alignment(a, a.detach(), alpha=alpha), a)
    assert (gradient == 0).all()
    assert gradcheck(lambda x, y: alignment(x, y, alpha=alpha), (a, b))


def test_two_directions():
    """Three samples along one axis, three along the opposite: 6 of 15 pairs are equal."""
    z = torch.tensor([[1.0, 0]] * 3 + [[-2.0, 0]] * 3)
    assert close(negative_cosine(z), (6 - 9) / 15)
    assert close(uniformity(z), math.log((6 + 9 * math.exp(-8)) / 15))
    assert close(feature_std(z), math.sqrt(2) * math.sqrt(6 / 5) / 2)


def test_against_loops():
    a, b = draw(2, 9, 4)
    u, v = F.normalize(a, dim=1), F.normalize(b, dim=1)
    pairs = [(u[i], u[j]) for i in range(9) for j in range(9) if i != j]
    potentials = torch.stack([(-2 * (x - y).square().sum()).exp() for x, y in pairs])
    torch.testing.assert_close(uniformity(a), potentials.mean().log())
    torch.testing.assert_close(negative_cosine(a), torch.stack([x @ y for x, y in pairs]).mean())
    distances = [(x - y).norm() ** 2 for x, y in zip(u, v, strict=True)]
    torch.testing.assert_close(alignment(a, b), torch.stack(distances).mean())
    torch.testing.assert_close(positive_cosine(a, b), 1 - alignment(a, b) / 2)


def test_blocks_of_rows_do_not_change_the_uniformity(monkeypatch):
    z = draw(2, 11, 4)
    whole = uniformity(z)
    monkeypatch.setattr(cwrgp.similarity, "_BLOCK", 4)
    torch.testing.assert_close(uniformity(z), whole)


def test_rotation_changes_nothing_but_the_standard_deviation_of_channels():
    z, other = draw(2, 8, 4)
    rotation = torch.linalg.qr(draw(4, 4)).Q
    for function in OF_PAIRS:
        torch.testing.assert_close(function(z @ rotation, other @ rotation), function(z, other))
    for function in (uniformity, negative_cosine):
        torch.testing.assert_close(function(5 * z @ rotation), function(z))
    torch.testing.assert_close(feature_std(5 * z), feature_std(z))


@pytest.mark.parametrize("function", OF_PAIRS)
def test_functions_of_pairs_are_batched_and_have_a_gradient(function):
    a, b = draw(2, 2, 3, 5, 4)
    pairs = zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)
    alone = torch.stack([function(x, y) for x, y in pairs]).unflatten(0, (2, 3))
    torch.testing.assert_close(function(a, b), alone)
    assert gradcheck(function, (a[0, 0].clone().requires_grad_(), b[0, 0].clone().requires_grad_()))


@pytest.mark.parametrize("function", OF_SAMPLES)
def test_functions_of_samples_are_batched_and_have_a_gradient(function):
    z = draw(2, 3, 5, 4)
    alone = torch.stack([function(x) for x in z.flatten(0, 1)]).unflatten(0, (2, 3))
    torch.testing.assert_close(function(z), alone)
    assert gradcheck(function, z[0, 0].clone().requires_grad_())
    with pytest.raises(ValueError, match="two or more, got 1"):
        function(z[..., :1, :])


def test_all_indicators_at_once():
    a, b = draw(2, 40, 6)
    values = indicators(a, b)
    assert set(values) - set(indicators(a)) == {"alignment", "positive_cosine"}
    assert len(values) == 13 and all(isinstance(value, float) for value in values.values())
    assert values["uniformity"] == float(uniformity(a))
    assert values["alignment"] == float(alignment(a, b))
    assert indicators(a.numpy(), b.numpy()) == values  # as of np.load
    constant = indicators(torch.ones(40, 6))
    assert not any(math.isnan(value) for value in constant.values())
    assert constant["effective_rank"] == 1
    with pytest.raises(ValueError, match=r"got \[\(40, 6\), \(39, 6\)\]"):
        indicators(a, b[1:])
    with pytest.raises(ValueError, match=r"got \[\(40, 0\)\]"):
        indicators(a[:, :0])
    a[3, 1], b[[4, 5], 0] = math.nan, math.inf
    with pytest.raises(ValueError, match="features of 1 of 40 samples are NaN or infinite"):
        indicators(a)
    with pytest.raises(ValueError, match="features of 2 of 40 samples"):
        indicators(torch.ones(40, 6), b)
