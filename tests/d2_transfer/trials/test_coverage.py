"""How often intervals of AP hold the truth, with few objects, and how often they cry wolf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from simulated_detections import Spread, draw_runs, draw_scene, mean_ap, true_ap

from d2_transfer.scoring.weighted import resampled_weights
from d2_transfer.trials.plan import Arm, Plan
from d2_transfer.trials.results import Trial, compare_arms

SEEDS = (3, 5, 10)
IMAGES, OBJECTS, RESAMPLES = 200, 10, 300  # objects of each class, on average
# Standard deviation of a seed's quality with which the differences by seed vary as much by the
# seeds as their mean does by the images.
SHARED_IMAGES, OWN_IMAGES = 0.0675, 0.088


class Design(NamedTuple):
    """Two arms: their qualities, and what varies."""

    qualities: tuple[float, float]
    spread: Spread


def better_arm(ratio: float) -> Design:
    """The second arm is better by about 2 AP, on some objects more and on others less."""
    return Design((0.50, 0.57), Spread(arm=0.5, seed=SHARED_IMAGES * ratio, run=0.5))


def equal_arms(ratio: float) -> Design:
    """The same weights twice, each with seeds of its own."""
    return Design((0.50, 0.50), Spread(arm=0.0, seed=OWN_IMAGES * ratio, run=0.5))


def covered(
    design: Design, truth: float, simulations: int, seeds: Sequence[int]
) -> dict[int, float]:
    """The share of intervals, by the code that compares trials, that hold the true difference.

    For each number of seeds; the fewer are the first of the most.
    """
    most = max(seeds)
    rng = np.random.default_rng([most, round(1e4 * design.spread.seed)])
    arms = (Arm("a", ("a.pkl",)), Arm("b", ("b.pkl",)))
    plan = Plan("p", "", (), arms, tuple(range(most)), {})
    inside = dict.fromkeys(seeds, 0)
    for _ in range(simulations):
        scene = draw_scene(rng, IMAGES, OBJECTS)
        weights = resampled_weights(IMAGES, RESAMPLES, rng)
        weights = np.concatenate([np.ones((1, IMAGES)), weights])
        runs = draw_runs(rng, scene, design.qualities, most, design.spread)
        trials = {
            arm.name: [trial(seed, mean_ap(run, weights), arm.name) for seed, run in enumerate(of)]
            for arm, of in zip(arms, runs, strict=True)
        }
        for number in seeds:
            first = {arm: of_arm[:number] for arm, of_arm in trials.items()}
            (found,) = compare_arms(plan, first, IMAGES)
            low, _, high = found.changes["bbox/AP"].interval
            inside[number] += int(low <= truth <= high)
    return {number: count / simulations for number, count in inside.items()}


def trial(seed: int, aps: np.ndarray, arm: str) -> Trial:
    """A cell: AP on the images, and on the resampled ones."""
    values, resampled = {"bbox/AP": float(aps[0])}, {"bbox/AP": aps[1:]}
    return Trial(seed, values, resampled, {}, {}, f"{arm} {seed}", 1.0, {})


def true_difference(design: Design, images: int) -> float:
    first, second = (
        true_ap(np.random.default_rng(0), quality, design.spread, images)
        for quality in design.qualities
    )
    return second - first


def test_the_true_difference_is_that_of_very_many_images() -> None:
    """Two sizes agree; and where the arms are equal there is none."""
    design = better_arm(1)
    few, many = (true_difference(design, images) for images in (20_000, 80_000))
    assert few == pytest.approx(many, abs=0.3) and 1.5 < many < 2.5
    assert true_difference(equal_arms(1), 20_000) == pytest.approx(0, abs=1e-9)


def test_intervals_hold_the_truth_nearly_as_often_as_said() -> None:
    """Within three standard errors of 200 simulations of 91 to 98 %."""
    truth = true_difference(better_arm(1), 40_000)
    assert 0.86 <= covered(better_arm(1), truth, 200, [3])[3] < 1


def test_equal_weights_seldom_differ_but_not_never() -> None:
    """2 to 9 %, but for three standard errors: never to err is to be wider than need be."""
    assert 0.01 <= 1 - covered(equal_arms(0), 0.0, 200, [3])[3] <= 0.14


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
def test_coverage(ratio: float) -> None:
    design = better_arm(ratio)
    shares = covered(design, true_difference(design, 200_000), 2000, SEEDS)
    print(f"ratio {ratio}, covered: {shares}")
    assert all(0.91 <= share <= 0.98 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
def test_false_positives(ratio: float) -> None:
    shares = covered(equal_arms(ratio), 0.0, 1000, SEEDS)
    print(f"ratio {ratio}, covered: {shares}")
    assert all(0.02 <= 1 - share <= 0.09 for share in shares.values()), shares
