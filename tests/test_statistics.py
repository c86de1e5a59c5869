"""Intervals against SciPy's own tests, their coverage, and the error rates of equivalence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cwrgp.statistics import (
    bonferroni_level,
    difference_interval,
    equivalent,
    error_of_images,
    mean_interval,
    trial_difference,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("size", [2, 5, 30])
def test_a_mean_is_scipys(size, level):
    x = RNG.normal(3, 2, size)
    expected = stats.ttest_1samp(x, 0).confidence_interval(level)
    interval = mean_interval(x, level=level)
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert interval.value == pytest.approx(x.mean())


@pytest.mark.parametrize("sizes", [(5, 5), (3, 9), (2, 2)])
def test_differences_are_scipys(sizes):
    a, b = RNG.normal(1, 3, sizes[0]), RNG.normal(0, 1, sizes[1])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    interval = difference_interval(a, b, paired=False, level=0.9)
    assert (interval.low, interval.high) == pytest.approx(expected)
    if sizes[0] == sizes[1]:
        expected = stats.ttest_rel(a, b).confidence_interval(0.9)
        interval = difference_interval(a, b, paired=True, level=0.9)
        assert (interval.low, interval.high) == pytest.approx(expected)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([2.0, 2.0, 2.0]) == (2, 2, 2)
    assert difference_interval([2.0, 2.0], [1.0, 1.0], paired=False) == (1, 1, 1)


def test_coverage():
    inside = [
        (i := difference_interval(*RNG.normal(0, 1, (2, 5)), paired=False)).low < 0 < i.high
        for _ in range(2000)
    ]
    assert 0.94 <= np.mean(inside) <= 0.975  # Welch's is a little conservative


def test_equivalence_is_claimed_wrongly_in_five_percent_at_most():
    """Where the true difference is the margin itself, and almost always where there is none."""
    at_the_margin = [
        equivalent(RNG.normal(1, 0.3, 5), RNG.normal(0, 0.3, 5), paired=False) for _ in range(2000)
    ]
    assert np.mean(at_the_margin) < 0.065
    same = [
        equivalent(RNG.normal(0, 0.3, 5), RNG.normal(0, 0.3, 5), paired=False) for _ in range(300)
    ]
    assert np.mean(same) > 0.9
    # Noise is no equivalence.
    assert not equivalent([0.0, 9, 3, 7, 1], [1.0, 8, 2, 9, 0], paired=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "an interval needs two values or more, got 1"),
        (lambda: difference_interval([1, 2], [1], paired=True), "2 and 1 values are not pairs"),
        (lambda: difference_interval([1, 2], [1], paired=False), "two values or more, got 2 and 1"),
        (lambda: equivalent([1] * 4, [1] * 5, paired=False), "4 seeds are too few .*; use 5"),
        (lambda: bonferroni_level(0.95, 0), "comparisons 0 is below 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bonferroni():
    assert bonferroni_level(0.95, 1) == pytest.approx(0.95)
    assert bonferroni_level(0.95, 5) == pytest.approx(0.99)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
def test_trials_on_a_sample_of_images_are_covered(seeds, ratio):
    """2,000 designs: effects of images, of seeds (`ratio` times as large in the mean), of both."""
    rng = np.random.default_rng([seeds, int(2 * ratio)])
    images, truth, covered = 200, 1.3, 0
    for _ in range(2000):
        table = truth + rng.normal(0, 1, (images, 1)) + rng.normal(0, 0.5, (images, seeds))
        table = table + rng.normal(0, ratio / images**0.5, seeds)
        image_error = table.mean(1).std(ddof=1) / images**0.5  # the bootstrap's, for a mean
        low, _, high = trial_difference(table.mean(0), image_error).interval
        covered += low <= truth <= high
    assert 0.91 <= covered / 2000 <= 0.98


def test_without_an_error_of_the_images_trials_have_students_interval():
    d = RNG.normal(1, 2, 5)
    found = trial_difference(d, 0.0, level=0.9)
    assert found.interval == pytest.approx(mean_interval(d, level=0.9))
    assert found.freedom == pytest.approx(4) and found.seeds == 5


def test_one_trial_and_equal_trials_have_the_error_of_the_images():
    for d in ([2.0], [2.0, 2.0]):
        found = trial_difference(d, 0.5)
        assert found.error == 0.5 and found.freedom == np.inf
        expected = stats.norm(2, 0.5).interval(0.95)
        assert (found.interval.low, found.interval.high) == pytest.approx(expected)


def test_a_detectable_difference_is_detected_as_often_as_said():
    rng = np.random.default_rng(3)
    typical = trial_difference(RNG.normal(0, 1, 50), 0.3)
    effect = typical.detectable(power=0.8)
    draws = rng.normal(effect, 1, (2000, 50)) + rng.normal(0, 0.3, (2000, 1))
    shown = [trial_difference(d, 0.3).interval.low > 0 for d in draws]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.05)


def test_the_error_of_the_images_is_the_covariance_of_trials():
    """What images add to each trial by itself is in the spread of the trials, not counted twice."""
    rng = np.random.default_rng(4)
    resampled = rng.normal(0, 2, 400) + rng.normal(0, 1, (5, 400))
    covariance = np.cov(resampled)
    expected = covariance[~np.eye(5, dtype=bool)].mean() ** 0.5
    assert error_of_images(resampled) == pytest.approx(expected)
    assert error_of_images(resampled) == pytest.approx(2, rel=0.1)
    assert error_of_images(resampled[:1]) == pytest.approx(covariance[0, 0] ** 0.5)
    assert error_of_images(np.array([[1.0, 2, 3], [3, 2, 1]])) == 0  # they vary against each other


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
def test_equal_weights_with_disjoint_seeds_seldom_differ(seeds, ratio):
    """Images add to each run by itself, and seeds (`ratio` times as much), nothing to an arm."""
    rng = np.random.default_rng([seeds, int(2 * ratio)])
    images, wrong = 200, 0
    for _ in range(2000):
        arms = rng.normal(0, 1, (2, seeds, images)) + rng.normal(0, ratio, (2, seeds, 1)) / 14
        table = arms[1] - arms[0]
        # The bootstrap over images, for means: its covariances of two trials.
        image_error = error_of_images(table) / images**0.5
        low, _, high = trial_difference(table.mean(1), image_error).interval
        wrong += not low <= 0 <= high
    assert 0.02 <= wrong / 2000 <= 0.09
