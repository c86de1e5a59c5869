"""From values and resampled images to an interval and a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from d2_transfer.trials.plan import Arm, Plan
from d2_transfer.trials.results import Comparison, Trial, compare_arms

IMAGES = 4952
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 1, (4, 500))
NOISE = (NOISE - NOISE.mean(axis=1, keepdims=True)) / NOISE.std(axis=1, ddof=1, keepdims=True)


def trial(seed: int, ap: float, error: float, noise: int = 0, digest: str = "") -> Trial:
    """A cell whose AP varies over images with this standard error."""
    values = {"bbox/AP": ap, "bbox/AP-cat": ap + 1, "bbox/APl": float("nan")}
    resampled = {
        "bbox/AP": ap + error * NOISE[noise],
        "bbox/AP-cat": np.where(np.arange(500) < 10, np.nan, ap + 1 + error * NOISE[noise]),
        "bbox/APl": np.full(500, np.nan),
    }
    digest = digest or f"{seed}-{ap}"
    return Trial(seed, values, resampled, {}, {}, digest, 60.0, {"torch": "2"})


def compare(
    reference: list[Trial],
    ours: list[Trial],
    weights: tuple[str, ...] = ("a.pkl",),
    third: list[Trial] | None = None,
) -> list[Comparison]:
    arms = [Arm("random", ("random",)), Arm("ours", weights)]
    trials = {"random": reference, "ours": ours}
    if third is not None:
        arms.append(Arm("third", ("c.pkl",)))
        trials["third"] = third
    seeds = tuple(trial.seed for trial in reference)
    return compare_arms(Plan("p", "", (), tuple(arms), seeds, {}), trials, IMAGES)


def arm(aps: list[float], error: float = 0.0, noise: int = 0) -> list[Trial]:
    return [trial(seed, ap, error, noise) for seed, ap in enumerate(aps, start=1)]


def test_the_interval_is_of_seeds_and_images() -> None:
    reference, ours = arm([30, 31, 32, 33, 34]), arm([32, 34, 33, 36, 36], 0.5, 1)
    (found,) = compare(reference, ours)
    change = found.changes["bbox/AP"]
    differences = np.array([2, 3, 1, 3, 2])
    by_seeds = differences.var(ddof=1) / 5
    error = np.sqrt(by_seeds + 0.5**2)
    half = stats.t.ppf(0.975, error**4 * 4 / by_seeds**2) * error
    assert change.interval == pytest.approx((2.2 - half, 2.2, 2.2 + half))
    low, high = f"{2.2 - half:.1f}", f"{2.2 + half:.1f}"
    assert found.verdict == (
        f"The weights ours are better than random by 2.2 box AP, 95 % interval {low} to {high}"
        " (5 seeds, 4,952 images)."
    )
    assert found.seeds == (1, 2, 3, 4, 5)
    assert found.changes["bbox/AP-cat"].interval.value == pytest.approx(2.2)
    assert "bbox/APl" not in found.changes  # no objects of that size
    worse = compare(ours, reference)[0].verdict
    assert worse.startswith("The weights ours are worse than random by 2.2 box AP, 95 % interval")
    assert f"{low} to {high}" in worse


def test_images_that_both_arms_share_cancel() -> None:
    (found,) = compare(arm([30, 31], 3.0), arm([32, 33], 3.0))
    assert found.changes["bbox/AP"].image_error == pytest.approx(0, abs=1e-9)


def test_only_repeated_pretrainings_speak_of_the_pretraining() -> None:
    verdict = compare(arm([30, 31]), arm([40, 41], 0.5, 1), ("a.pkl", "b.pkl"))[0].verdict
    assert verdict.startswith("The pretraining ours is better than random by 10.0 box AP")


def test_one_seed_speaks_of_two_runs() -> None:
    verdict = compare(arm([30], 0.1), arm([32], 0.1, 1))[0].verdict
    assert verdict.startswith("These two runs: ours is better than random by 2.0 box AP")
    assert "(1 seed, 4,952 images)" in verdict


def test_noise_is_called_so_with_what_the_design_could_show() -> None:
    seeds = compare(arm([30, 31, 32]), arm([31, 30, 33]))[0]
    shown = seeds.changes["bbox/AP"].detectable()
    assert seeds.verdict.startswith("The weights ours and random differ by +0.3 box AP, inside the")
    assert seeds.verdict.endswith(f"differences of {shown:.1f} AP or more with 80 % power.")
    images = compare(arm([30, 31, 32]), arm([30.1, 31.2, 32.1], 1.0, 1))[0]
    assert images.verdict.endswith("more test images are needed, not more seeds.")


def test_a_difference_that_rounds_to_0_has_no_minus_sign() -> None:
    verdict = compare(arm([30, 31, 32]), arm([29.9, 31, 32]))[0].verdict
    assert "differ by +0.0 box AP" in verdict


def test_several_arms_have_joint_intervals() -> None:
    reference, ours = arm([30, 31, 32]), arm([32, 34, 33])
    alone = compare(reference, ours)[0].changes
    first, second = compare(reference, ours, third=arm([31, 33, 31]))
    freedom = alone["bbox/AP"].freedom
    widths = [np.ptp(c["bbox/AP"].interval[::2]) for c in (alone, first.changes)]
    factor = stats.t.ppf(1 - 0.0125, freedom) / stats.t.ppf(1 - 0.025, freedom)
    assert widths[1] / widths[0] == pytest.approx(factor)
    # Other metrics are not adjusted.
    assert first.changes["bbox/AP-cat"].interval == alone["bbox/AP-cat"].interval
    assert (first.arm, second.arm, second.reference) == ("ours", "third", "random")


def test_identical_runs_have_no_interval() -> None:
    same = [trial(seed, 30.0, 0.1, digest=f"d{seed}") for seed in (1, 2)]
    (found,) = compare(same, same)
    assert found.verdict == "identical runs" and not found.changes


def test_only_seeds_that_both_have_finished_count() -> None:
    (found,) = compare(arm([30, 31, 32]), [trial(2, 34, 0.1)])
    assert found.seeds == (2,) and "(1 seed" in found.verdict
    assert compare(arm([30, 31, 32]), []) == []


def test_an_unknown_reference_is_named() -> None:
    plan = Plan("p", "", (), (Arm("a", ("random",)),), (1,), {})
    with pytest.raises(ValueError, match="reference 'b' is no arm; choose one of a"):
        compare_arms(plan, {"a": []}, 1, reference="b")


def test_a_difference_without_spread_has_no_interval_and_no_verdict() -> None:
    """One seed and one image with objects: all resamples give the same."""
    for aps in ([30.0], [30.0, 30.0]):
        (found,) = compare(arm(aps, 3.0), arm([ap + 2 for ap in aps], 3.0))
        assert "differ by +2.0 box AP, but neither other seeds nor other images" in found.verdict
        assert "better" not in found.verdict and "95 %" not in found.verdict


def test_one_seed_does_not_say_that_more_seeds_are_useless() -> None:
    one, two = arm([30], 0.1), arm([30.1], 0.5, 1)
    verdict = compare(one, two)[0].verdict
    assert "inside the noise" in verdict and "not more seeds" not in verdict


def test_intervals_of_several_arms_are_called_joint() -> None:
    reference, ours = arm([30, 31, 32]), arm([32, 34, 33], 0.5, 1)
    (alone,) = compare(reference, ours)
    assert "joint" not in alone.verdict
    both = compare(reference, ours, third=arm([30, 31, 33], 0.5, 2))
    assert all("joint 95 % interval" in found.verdict for found in both)
