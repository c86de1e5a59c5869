"""Numbers of results.json, and what they are taken to show."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from analysis_results import result
from scipy import stats

from cwrgp.analysis.results import collect, summary


def test_the_interval_of_a_mean_is_students() -> None:
    found = summary([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert found["mean"] == pytest.approx(7 / 3)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["runs"] == [1.0, 2.0, 4.0]


def test_one_seed_has_no_interval_and_what_is_not_finite_is_null() -> None:
    assert summary([3.0]) == {"mean": 3.0, "low": None, "high": None, "runs": [3.0]}
    assert summary([3.0, math.inf])["mean"] is None
    assert summary([math.nan])["runs"] == [None]


def test_runs_become_arms() -> None:
    runs: list[Any] = [("A", 2.0, 0, result(10.0, 5.0)), ("A", 2.0, 1, result(20.0, 7.0))]
    found = collect(
        "groups", [*runs, ("B", None, 0, result(None, math.inf))], [0, 1], {"epochs": 6}
    )
    a, b = found["arms"]
    assert (a["series"], a["x"], a["seeds"], found["preview"]) == ("A", 2.0, [0, 1], False)
    assert a["values"]["knn"]["mean"] == 15 and a["values"]["knn"]["low"] < 10
    assert a["values"]["embedding/effective_rank"]["runs"] == [5.0, 7.0]
    # The mean over the second half of the run.
    assert a["values"]["monitor/target_volatility"]["mean"] == pytest.approx(0.3)
    assert a["curves"]["total_loss"] == {"x": [1, 2], "y": [[2.0, 1.0], [2.0, 1.0]]}
    assert b["seeds"] == [0] and "knn" not in b["values"]
    assert b["values"]["embedding/effective_rank"]["mean"] is None
    assert found["hours"] == 3 and found["environments"] == [{"device": "a"}]
    json.dumps(found, allow_nan=False)


def whitening(pca: dict[str, Any], *others: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("PCA", "ZCA", "Cholesky")
    runs = [(name, None, 0, r) for name, r in zip(names, (pca, *others), strict=True)]
    return collect("whitening", runs, [0], {})["findings"]


def test_whitening_findings_follow_the_numbers() -> None:
    good = result(40.0, 30.0)
    shown = whitening(
        result(20.0, 3.0) | {"curves": {"monitor/target_volatility": ([1], [1.4])}}, good, good
    )
    assert [finding["seen"] for finding in shown] == [True, True, True]
    assert "PCA 140%, ZCA 30%, Cholesky 30%" in shown[0]["text"]
    assert "PCA 5%, ZCA 47%, Cholesky 47%" in shown[1]["text"]
    assert "PCA 20.0 %, ZCA 40.0 %, Cholesky 40.0 %" in shown[2]["text"]
    # As good as one of them: not seen.
    shown = whitening(result(40.0, 30.0), good, result(50.0, 40.0))
    assert [finding["seen"] for finding in shown] == [False, False, False]


def test_targets_that_all_move_alike_are_no_finding() -> None:
    def moves(share: float) -> dict[str, Any]:
        return result(None, 3.0) | {"curves": {"monitor/target_volatility": ([1], [share])}}

    assert not whitening(moves(1.35), moves(1.24), moves(1.30))[0]["seen"]
    assert not whitening(moves(0.03), moves(0.01), moves(0.02))[0]["seen"]  # it stays
    assert whitening(moves(1.35), moves(0.2), moves(0.9))[0]["seen"]


def test_findings_need_their_arms_and_labels() -> None:
    good = result(40.0, 30.0)
    partial = collect("whitening", [("PCA", None, 0, good)], [0], {}, complete=False)
    assert partial["findings"] == [] and not partial["complete"]
    assert len(whitening(*[result(None, 3.0)] * 3)) == 2
    runs = [(name, 2.0, 0, result(None, 3.0)) for name in ("fixed", "random")]
    assert collect("groups", runs, [0], {})["findings"] == []


def test_penalty_findings_follow_the_numbers() -> None:
    def shown(rank: float, cosine: float, knn: float) -> list[bool]:
        last = result(knn, 9.0, normalized_stable_rank=rank, negative_cosine=cosine)
        runs = [("CW-RGP", 0.0, 0, result(30.0, 9.0)), ("CW-RGP", 1.0, 0, last)]
        return [f["seen"] for f in collect("penalty", runs, [0], {})["findings"]]

    assert shown(0.5, 0.02, 20.0) == [True, True]
    assert shown(0.5, 0.2, 29.5) == [False, False]  # whiter, but more similar negatives
    assert shown(0.35, 0.06, 20.0) == [False, True]  # about as similar
    assert shown(0.21, 0.0, 20.0) == [False, False]  # about as white
    assert shown(0.1, 0.2, 40.0) == [True, True]  # the larger weight is the less white one


def test_batch_size_finding_follows_the_numbers() -> None:
    def shown(channel: float, batch: float, channel_256: float = 40, batch_256: float = 40) -> bool:
        at = {
            ("CW-RGP", 32.0): channel,
            ("CW-RGP", 256.0): channel_256,
            ("batch whitening", 32.0): batch,
            ("batch whitening", 256.0): batch_256,
        }
        runs = [(series, x, 0, result(knn, 9.0)) for (series, x), knn in at.items()]
        (found,) = collect("batch-size", runs, [0], {})["findings"]
        return bool(found["seen"])

    assert shown(39.0, 20.0) and not shown(20.0, 39.0) and not shown(30.0, 30.0)
    assert not shown(25.0, 20.0, 40.0, 38.0)  # channel whitening does not hold its accuracy
    assert not shown(30.0, 28.0, 27.0, 26.0)  # batch whitening does not fail


def test_accuracy_that_falls_for_some_seeds_does_not_hold() -> None:
    knn = {"CW-RGP": ((29, 21, 20), (40, 41, 28)), "batch whitening": ((10,) * 3, (40,) * 3)}
    runs = [
        (series, x, seed, result(value, 9.0))
        for series, at in knn.items()
        for x, values in zip((32.0, 256.0), at, strict=True)
        for seed, value in enumerate(values)
    ]
    (found,) = collect("batch-size", runs, [0, 1, 2], {})["findings"]
    assert not found["seen"]


def test_every_seed_must_agree() -> None:
    def shown(*random: float) -> bool:
        runs = [("fixed", 2.0, s, result(30.0 + s, 9.0)) for s in range(2)]
        runs += [("random", 2.0, s, result(knn, 9.0)) for s, knn in enumerate(random)]
        (found,) = collect("groups", runs, [0, 1], {})["findings"]
        return bool(found["seen"])

    assert shown(32.0, 33.0) and not shown(30.5, 40.0) and not shown(31.1, 31.2)
