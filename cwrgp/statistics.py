"""Intervals of repeated measurements, and what "the same within noise" means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

MIN_SEEDS = 5  # for a claim of equivalence
MARGIN = 1.0  # percentage points within which two accuracies or APs count as the same


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: its lower end.
        value: the estimate.
        high: its upper end.
    """

    low: float
    value: float
    high: float


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Student's t interval of a mean.

    Args:
        values: independent measurements, two or more.
        level: coverage, in (0, 1).

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"an interval needs two values or more, got {x.size}")
    half = stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(x.mean() - half, x.mean(), x.mean() + half)


def difference_interval(
    a: Sequence[float], b: Sequence[float], *, paired: bool, level: float = 0.95
) -> Interval:
    """An interval of the mean of ``a`` minus the mean of ``b``.

    Args:
        a: measurements, two or more.
        b: likewise.
        paired: whether the i-th of both share a seed: the interval is then that of the mean of the
            differences; otherwise Welch's, with Satterthwaite's degrees of freedom.
        level: coverage, in (0, 1).

    Raises:
        ValueError: fewer than two values, or pairs that do not match.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if paired:
        if x.shape != y.shape:
            raise ValueError(f"{len(x)} and {len(y)} values are not pairs")
        return mean_interval((x - y).tolist(), level=level)
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(x)} and {len(y)}")
    squares = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    value = x.mean() - y.mean()
    if not squares.any():
        return Interval(value, value, value)
    freedom = squares.sum() ** 2 / (squares**2 / [len(x) - 1, len(y) - 1]).sum()
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(squares.sum())
    return Interval(value - half, value, value + half)


class TrialDifference(NamedTuple):
    """The difference of two arms over repeated trials on a sample of test images.

    Attributes:
        interval: of the difference.
        error: its standard error.
        freedom: degrees of freedom of the t distribution; inf for the normal one.
        seeds: number of trials.
        image_error: the part of the error that more trials do not reduce.
    """

    interval: Interval
    error: float
    freedom: float
    seeds: int
    image_error: float

    def detectable(self, *, level: float = 0.95, power: float = 0.8) -> float:
        """The smallest true difference that a design with this error shows with a power."""
        quantiles = stats.t.ppf([(1 + level) / 2, power], self.freedom)
        return float(quantiles.sum() * self.error)


def error_of_images(resampled: np.ndarray) -> float:
    """The error of a mean difference over trials that more trials do not reduce.

    The bootstrap variance of the mean over S trials is v + w / S, with v what the images add to all
    trials alike and w what they add to each by itself. Differences by trial vary by w too, so
    s_d^2 / S has w / S already; to add it again makes intervals up to sqrt(2) times too wide. v is
    the mean covariance of two trials' differences over the resamples.

    Args:
        resampled: float64 (S, resamples), the difference of each trial, with resampled images that
            are the same for all trials.

    Returns:
        The square root of v, 0 where the estimate is negative; with one trial that of v + w.
    """
    of_mean = float(resampled.mean(axis=0).var(ddof=1))
    if len(resampled) == 1:
        return of_mean**0.5
    alone = float(resampled.var(axis=1, ddof=1).mean())
    return max(0.0, of_mean - (alone - of_mean) / (len(resampled) - 1)) ** 0.5


def trial_difference(
    differences: Sequence[float], image_error: float, *, level: float = 0.95
) -> TrialDifference:
    """The difference of two arms, uncertain by the seeds and by the test images.

    With d_s the differences by seed, d their mean and s_d their standard deviation, the squared
    error is s_d^2 / S + image_error^2. The degrees of freedom are Satterthwaite's, where the second
    term counts as known: nu = se^4 (S - 1) / (s_d^2 / S)^2.

    Args:
        differences: second arm minus first, with equal seeds; one value or more. With one, the
            interval is of these two runs and has the error of the images alone.
        image_error: standard error over the test images that all trials share: `error_of_images`.
        level: coverage, in (0, 1).

    Raises:
        ValueError: no difference, or a negative or not finite error.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not len(d):
        raise ValueError("differences must hold one value or more")
    if not (np.isfinite(image_error) and image_error >= 0):
        raise ValueError(f"image_error {image_error} is not a finite number of 0 or more")
    by_seeds = float(d.var(ddof=1)) / len(d) if len(d) > 1 else 0.0
    error = float(np.sqrt(by_seeds + image_error**2))
    freedom = error**4 * (len(d) - 1) / by_seeds**2 if by_seeds else np.inf
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    value = float(d.mean())
    interval = Interval(value - half, value, value + half)
    return TrialDifference(interval, error, freedom, len(d), image_error)


def equivalent(
    a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float = MARGIN
) -> bool:
    """Whether two arms are the same within seed noise.

    Two one-sided tests at 5 %: the 90 % interval of the difference lies inside +- ``margin``. A
    difference that is merely not significant is not equivalence.

    Args:
        a: a measurement for each seed, in percent.
        b: likewise.
        paired: as for `difference_interval`.
        margin: in percentage points.

    Raises:
        ValueError: fewer than `MIN_SEEDS` seeds.
    """
    if min(len(a), len(b)) < MIN_SEEDS:
        raise ValueError(
            f"{min(len(a), len(b))} seeds are too few to claim equivalence; use {MIN_SEEDS} or more"
        )
    interval = difference_interval(a, b, paired=paired, level=0.90)
    return -margin < interval.low and interval.high < margin


def bonferroni_level(level: float, comparisons: int) -> float:
    """The level of each of several intervals that cover together with ``level`` or more.

    Raises:
        ValueError: no comparison.
    """
    if comparisons < 1:
        raise ValueError(f"comparisons {comparisons} is below 1")
    return 1 - (1 - level) / comparisons
