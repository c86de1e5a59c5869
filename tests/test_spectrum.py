"""Spectrum and ranks where they are known in closed form, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

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

OF_EIGENVALUES = (effective_rank, participation_ratio, condition_number)
OF_FEATURES = (stable_rank, normalized_stable_rank, rankme)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def features(*singular_values: float, n: int = 12) -> torch.Tensor:
    """Centred, with these singular values and random singular vectors."""
    width = len(singular_values)
    x = draw(n, width)
    left = torch.linalg.qr(x - x.mean(0)).Q
    right = torch.linalg.qr(draw(width, width + 1)).Q
    return left @ torch.diag(torch.tensor(singular_values, dtype=torch.float64)) @ right


def close(got: torch.Tensor, expected: float, tolerance: float = 1e-9) -> bool:
    assert got.dtype == torch.float64
    return math.isclose(got.item(), expected, rel_tol=tolerance, abs_tol=1e-12)


def test_spectrum_equals_the_eigenvalues_of_the_covariance():
    x = 3 + draw(50, 6)
    expected = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    torch.testing.assert_close(covariance_spectrum(x), expected, rtol=1e-10, atol=0)
    spectrum = covariance_spectrum(features(3, 2, 1) + 5)
    torch.testing.assert_close(spectrum, torch.tensor([9.0, 4, 1]).double() / 11)


def test_a_spectrum_has_as_many_eigenvalues_as_there_are_channels():
    spectrum = covariance_spectrum(draw(4, 9))
    assert spectrum.shape == (9,) and (spectrum[:3] > 0).all() and (spectrum[3:] == 0).all()


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="two samples or more, got 1"):
        covariance_spectrum(torch.ones(1, 4))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e10])
def test_equal_eigenvalues_are_all_dimensions(scale):
    spectrum = torch.full((8,), scale)
    assert close(effective_rank(spectrum), 8) and close(participation_ratio(spectrum), 8)
    assert close(condition_number(spectrum), 1)
    assert numerical_rank(spectrum) == 8 and close(normalized_rank(spectrum), 1)
    identity = scale * torch.eye(8)
    assert close(stable_rank(identity), 8) and close(normalized_stable_rank(identity), 1)
    assert close(rankme(identity), 8, 1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1.0])
def test_rank_one_is_the_least(scale):
    x = scale * features(1, 0, 0, 0)
    spectrum = covariance_spectrum(x)
    assert close(effective_rank(spectrum), 1, 1e-6) and close(participation_ratio(spectrum), 1)
    assert condition_number(spectrum) == math.inf
    assert numerical_rank(spectrum) == 1 and close(normalized_rank(spectrum), 0.25)
    assert close(stable_rank(x), 1) and close(normalized_stable_rank(x), 0.25)
    assert close(rankme(x), 1, 1e-4)


def test_two_eigenvalues():
    """3 : 1, that is singular values of sqrt(3) : 1."""
    x = features(math.sqrt(3), 1, n=9)
    spectrum = covariance_spectrum(x)
    assert close(effective_rank(spectrum), math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
    assert close(participation_ratio(spectrum), 16 / 10)
    assert close(condition_number(spectrum), 3)
    assert numerical_rank(spectrum) == 2
    assert close(stable_rank(x), 4 / 3) and close(normalized_stable_rank(x), 2 / 3)
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert close(rankme(x), math.exp(entropy), 1e-5)


def test_numerical_rank_compares_standard_deviations():
    spectrum = torch.tensor([100.0, 1.0, 0.0101, 0.0099, 0.0])
    assert numerical_rank(spectrum) == 3 and close(normalized_rank(spectrum), 0.6)
    assert numerical_rank(spectrum, tolerance=0.2) == 1


@pytest.mark.parametrize("value", [0.0, 0.1, 2.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_have_the_least_rank_and_nothing_that_is_not_a_number(value, dtype):
    x = torch.full((16, 4), value, dtype=dtype, requires_grad=True)
    spectrum = covariance_spectrum(x)
    assert (spectrum == 0).all()
    assert effective_rank(spectrum) == 1 and participation_ratio(spectrum) == 1
    assert condition_number(spectrum) == math.inf
    assert numerical_rank(spectrum) == 0 and normalized_rank(spectrum) == 0
    assert close(stable_rank(x), 1 if value else 0)
    assert close(normalized_stable_rank(x), 0.25 if value else 0)
    assert close(rankme(x), 1, 1e-4)
    values = effective_rank(spectrum) + participation_ratio(spectrum) + stable_rank(x) + rankme(x)
    (gradient,) = torch.autograd.grad(values, x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(500, 64), (64, 500)])
def test_what_is_within_the_rounding_of_the_dtype_is_no_dimension(dtype, shape):
    one = draw(shape[0], 1) * draw(1, shape[1]) + draw(1, shape[1])  # on a line, off the origin
    spectrum = covariance_spectrum(one.to(dtype))
    assert spectrum[0] > 0 and (spectrum[1:] == 0).all()
    equal = draw(1, shape[1]) + torch.finfo(dtype).eps * 0.2 * draw(*shape)
    assert effective_rank(covariance_spectrum(equal.to(dtype))) == 1
    # A direction well above the rounding is one, however small. In fp64, computing rounds as well.
    small = draw(*shape) + 1
    small[:, 0] *= (1e6 if dtype == torch.float64 else 100) * torch.finfo(dtype).eps
    least = min(shape[1], shape[0] - 1)
    assert (covariance_spectrum(small.to(dtype))[:least] > 0).all()


def test_integers_are_features_too():
    x = (10 * draw(30, 5)).round()
    assert torch.equal(covariance_spectrum(x.to(torch.int16)), covariance_spectrum(x))


def test_rotation_and_scale_change_nothing():
    x = draw(30, 5) @ torch.diag(torch.tensor([5.0, 3, 2, 1, 0.1]).double())
    other = -7 * x @ torch.linalg.qr(draw(5, 5)).Q
    spectra = covariance_spectrum(x), covariance_spectrum(other)
    torch.testing.assert_close(49 * spectra[0], spectra[1])
    for function in OF_EIGENVALUES:
        torch.testing.assert_close(function(spectra[0]), function(spectra[1]))
    for function in OF_FEATURES:
        torch.testing.assert_close(function(x), function(other))
    moved = x + 10  # the spectrum is of centred features, the others are not
    torch.testing.assert_close(covariance_spectrum(moved), spectra[0])
    assert stable_rank(moved) < stable_rank(x) and rankme(moved) < rankme(x)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_stable_rank_against_the_norms_of_its_definition(shape):
    x = draw(2, *shape).requires_grad_()
    norms = [torch.linalg.matrix_norm(x, order).square() for order in ("fro", 2)]
    expected, got = norms[0] / norms[1], stable_rank(x)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(ranks.sum(), x)[0] for ranks in (got, expected)]
    torch.testing.assert_close(*gradients)


def test_bounds_and_order():
    """1 <= participation ratio <= effective rank <= D; the stable rank is at most the rank."""
    x = draw(40, 6) @ draw(6, 6)
    spectrum = covariance_spectrum(x)
    assert 1 < participation_ratio(spectrum) < effective_rank(spectrum) < 6
    assert 1 < stable_rank(x) < 6 and 1 < rankme(x) < 6


@pytest.mark.parametrize("function", [covariance_spectrum, *OF_FEATURES])
def test_features_are_batched_and_have_a_gradient(function):
    x = draw(2, 3, 7, 4)
    alone = torch.stack([function(y) for y in x.flatten(0, 1)]).unflatten(0, (2, 3))
    torch.testing.assert_close(function(x), alone)
    assert function(x.half()).dtype == torch.float64
    assert gradcheck(function, x[0, 0].clone().requires_grad_())


@pytest.mark.parametrize("function", OF_EIGENVALUES)
def test_functions_of_eigenvalues_are_batched_and_have_a_gradient(function):
    spectrum = covariance_spectrum(draw(2, 3, 7, 4))
    alone = torch.stack([function(y) for y in spectrum.flatten(0, 1)]).unflatten(0, (2, 3))
    torch.testing.assert_close(function(spectrum), alone)
    assert gradcheck(function, spectrum[0, 0].clone().requires_grad_())


def test_the_gradient_is_finite_where_eigenvalues_coincide_or_are_missing():
    equal = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    for x in (equal, features(1, 1, 0), draw(4, 9)):
        x.requires_grad_()
        spectrum = covariance_spectrum(x)
        value = effective_rank(spectrum) + participation_ratio(spectrum) + rankme(x)
        (gradient,) = torch.autograd.grad(value, x)
        assert gradient.isfinite().all()
