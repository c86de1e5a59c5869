"""Spectrum and ranks in the cases that are known in closed form."""

from __future__ import annotations

import pytest
import torch

from cwrgp.spectrum import (
    covariance_spectrum,
    effective_rank,
    embedding_statistics,
    numerical_rank,
    stable_rank,
)


def test_spectrum_equals_the_eigenvalues_of_the_covariance():
    x = torch.randn(50, 6)
    expected = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    torch.testing.assert_close(covariance_spectrum(x), expected, rtol=1e-4, atol=1e-5)


def test_ranks_of_a_line_and_of_a_ball():
    torch.testing.assert_close(effective_rank(torch.tensor([3.0, 0, 0])), torch.tensor(1.0))
    torch.testing.assert_close(effective_rank(torch.full((8,), 0.1)), torch.tensor(8.0))
    assert numerical_rank(torch.tensor([100.0, 1.0, 0.0101, 0.0099, 0.0])) == 3
    line = torch.outer(torch.randn(10), torch.randn(4))
    torch.testing.assert_close(stable_rank(line), torch.tensor(0.25))
    torch.testing.assert_close(stable_rank(3 * torch.eye(4)), torch.tensor(1.0))


def test_statistics_tell_a_collapse_from_an_isotropic_embedding():
    torch.manual_seed(0)
    good = embedding_statistics(torch.randn(4000, 16))
    collapsed = embedding_statistics(torch.ones(4000, 16) + 1e-4 * torch.randn(4000, 16))
    assert abs(good["embedding/std"] - 1) < 0.05 and good["embedding/effective_rank"] > 15.5
    assert collapsed["embedding/std"] < 1e-3
    assert good["embedding/numerical_rank"] == 16 and good["embedding/stable_rank"] > 0.8


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_equal_rows_have_no_rank_and_no_statistic_that_is_not_a_number(value):
    values = embedding_statistics(torch.full((16, 4), value))
    assert values["embedding/effective_rank"] == 0 and values["embedding/numerical_rank"] == 0
    assert values["embedding/stable_rank"] == (0.25 if value else 0)
    torch.testing.assert_close(values["embedding/std"], torch.tensor(0.0))


def test_one_dimension_is_the_least_that_is_not_nothing():
    spectrum = torch.tensor([1e-30, 0, 0, 0])
    torch.testing.assert_close(effective_rank(spectrum), torch.tensor(1.0))
    assert numerical_rank(spectrum) == 1
    torch.testing.assert_close(stable_rank(torch.eye(4)[:1] * 1e-6), torch.tensor(0.25))


def test_all_dimensions_alike_are_the_most():
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(64, 8, generator=generator)).Q
    x = torch.cat([x, -x])  # centred
    spectrum = covariance_spectrum(x)
    torch.testing.assert_close(effective_rank(spectrum), torch.tensor(8.0))
    assert numerical_rank(spectrum) == 8
    torch.testing.assert_close(stable_rank(x), torch.tensor(1.0))
