"""results.json of an experiment: every number of every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cwrgp.analysis.findings import findings
from cwrgp.statistics import mean_interval

RESULTS = "results.json"
SCHEMA = 1
# Curves whose mean over the second half of a run is one of its numbers.
_AVERAGED = ("monitor/target_volatility", "monitor/whitening_volatility")


def collect(
    experiment: str,
    runs: Sequence[tuple[str, float | None, int, Mapping[str, Any]]],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    *,
    complete: bool = True,
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        experiment: its name.
        runs: series, place on the horizontal axis or None, seed, and result, as
            `cwrgp.commands.analysis_run.pretrain_and_measure` returns it.
        seeds: of the plan.
        settings: of all runs, plain values.
        complete: whether these are all runs of the plan; there are no findings otherwise.

    Returns:
        ``schema``; ``experiment``; ``complete``; ``preview``: whether there is one seed only;
        ``seeds``; ``settings``; ``environments``; ``hours`` of the runs' last starts;
        ``findings``: see `cwrgp.analysis.findings.Finding`; ``arms``: a list with ``series``,
        ``x``, ``seeds``, ``width`` of the stages, ``values``: name -> ``mean``, ``low`` and
        ``high`` of the 95 % interval (null with one seed) and ``runs``, a value for each seed;
        ``curves``: name -> ``x`` and, for each seed, ``y``; ``spectra``: stage -> eigenvalues of
        the first seed. What is not finite is null.
    """
    arms: dict[tuple[str, float | None], list[tuple[int, Mapping[str, Any]]]] = {}
    for series, x, seed, result in runs:
        arms.setdefault((series, x), []).append((seed, result))
    environments = {tuple(result["environment"].items()) for _, _, _, result in runs}
    found = [_arm(series, x, of_arm) for (series, x), of_arm in arms.items()]
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "complete": complete,
        "preview": len(seeds) == 1,
        "seeds": list(seeds),
        "settings": dict(settings),
        "environments": [dict(items) for items in sorted(environments)],
        "hours": round(sum(result["seconds"] for *_, result in runs) / 3600, 3),
        "findings": findings(experiment, found) if complete else [],
        "arms": found,
    }


def _arm(
    series: str, x: float | None, runs: Sequence[tuple[int, Mapping[str, Any]]]
) -> dict[str, Any]:
    names = [name for name in _values(runs[0][1]) if all(name in _values(r) for _, r in runs)]
    first = runs[0][1]
    return {
        "series": series,
        "x": x,
        "seeds": [seed for seed, _ in runs],
        "width": first["width"],
        "values": {name: summary([_values(r)[name] for _, r in runs]) for name in names},
        "curves": {
            key: {"x": iterations, "y": [_finite(r["curves"][key][1]) for _, r in runs]}
            for key, (iterations, _) in first["curves"].items()
            if all(key in r["curves"] for _, r in runs)
        },
        "spectra": {stage: _finite(found) for stage, found in first["spectra"].items()},
    }


def _values(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a run by name: "knn", "embedding/stable_rank", ...

    They are of the measured images, while curves are of training batches.
    """
    values = {
        f"{stage}/{name}": value
        for stage, found in result["indicators"].items()
        for name, value in found.items()
    }
    for key, (_, records) in result["curves"].items():
        if key in _AVERAGED:
            second_half = records[len(records) // 2 :]
            values[key] = sum(second_half) / len(second_half)
    if result["knn"] is not None:
        values["knn"] = result["knn"]
    return values


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval of a value for each seed."""
    mean = sum(values) / len(values)
    low, high = (None, None)
    if len(values) > 1 and all(map(math.isfinite, values)):
        low, _, high = mean_interval(values)
    return {
        "mean": mean if math.isfinite(mean) else None,
        "low": low,
        "high": high,
        "runs": _finite(values),
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
