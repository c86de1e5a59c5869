"""The files that trials end in: results.json, results.csv, and tables for papers."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from cwrgp.file_io.atomic import write_text
from cwrgp.statistics import TrialDifference
from d2_transfer.trials.differences import config_differences
from d2_transfer.trials.plan import Plan
from d2_transfer.trials.published import Value, protocols, published_for
from d2_transfer.trials.results import Comparison, Trial

SCHEMA = 1
_COLUMNS = ("AP", "AP50", "AP75")


def as_json(
    plan: Plan,
    data: str,
    images: int,
    trials: Mapping[str, Sequence[Trial]],
    comparisons: Sequence[Comparison],
    parts: Mapping[float, tuple[Mapping[str, Sequence[Trial]], Sequence[Comparison]]],
    swept: Mapping[str, tuple[Mapping[float, float], float | None]],
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        plan: of the trials.
        data: name of the test set.
        images: of it.
        trials: of each arm.
        comparisons: with the reference.
        parts: percent of the training images -> likewise, trials and comparisons.
        swept: of a sweep: arm -> box AP on held-out training images by rate, and the chosen rate;
            None: every training diverged.

    Returns:
        ``schema``; ``protocol``; ``deviations`` from it; ``config``: ``key``, ``protocol`` and
        ``here`` of the keys among them; ``data``; ``images``; ``seeds``;
        ``arms``: name -> ``weights``, ``sha256`` and ``metrics``: metric -> ``values`` by seed,
        ``mean``, ``std`` (n - 1) and ``n``, in percent; ``comparisons``: ``arm``, ``reference``,
        ``seeds``, ``verdict`` and ``metrics``: metric -> ``value``, ``low``, ``high``, in points;
        ``fractions``: percent of the training images -> ``arms`` and ``comparisons`` likewise,
        where others than the largest were asked for; ``sweep``: arm -> ``values``, rate -> box AP
        on held-out training images, and the ``chosen`` rate;
        ``environments`` and ``hours``. What does not exist is null.
    """
    everything = [trials, *(of_part for of_part, _ in parts.values())]
    found = [trial for some in everything for of_arm in some.values() for trial in of_arm]
    environments = {json.dumps(trial.environment, sort_keys=True) for trial in found}
    return {
        "schema": SCHEMA,
        "protocol": plan.protocol,
        "deviations": list(plan.deviations),
        "config": [asdict(difference) for difference in config_differences(plan)],
        "data": data,
        "images": images,
        "seeds": list(plan.seeds),
        "arms": {
            arm.name: {
                "weights": list(arm.weights),
                "sha256": [plan.files[given][1] or None for given in arm.weights],
                "metrics": _summaries(trials[arm.name]),
            }
            for arm in plan.arms
        },
        "comparisons": [_comparison(comparison) for comparison in comparisons],
        "fractions": {
            f"{percent:g}": {
                "arms": {name: {"metrics": _summaries(some)} for name, some in of_part.items()},
                "comparisons": [_comparison(comparison) for comparison in compared],
            }
            for percent, (of_part, compared) in parts.items()
        },
        "sweep": {
            name: {
                "values": {f"{rate:g}": _finite(ap) for rate, ap in aps.items()},
                "chosen": chosen,
            }
            for name, (aps, chosen) in swept.items()
        },
        "environments": [json.loads(text) for text in sorted(environments)],
        "hours": round(sum(trial.seconds for trial in found) / 3600, 3),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "arm": comparison.arm,
        "reference": comparison.reference,
        "seeds": list(comparison.seeds),
        "verdict": comparison.verdict,
        "metrics": {name: _change(c) for name, c in comparison.changes.items()},
    }


def _summaries(trials: Sequence[Trial]) -> dict[str, Any]:
    metrics = trials[0].values if trials else {}
    return {metric: _summary(trials, metric) for metric in metrics}


def _summary(trials: Sequence[Trial], metric: str) -> dict[str, Any]:
    values = {str(trial.seed): _finite(trial.values[metric]) for trial in trials}
    finite = [value for value in values.values() if value is not None]
    return {
        "values": values,
        "mean": statistics.fmean(finite) if finite else None,
        "std": statistics.stdev(finite) if len(finite) > 1 else None,
        "n": len(finite),
    }


def _change(change: TrialDifference) -> dict[str, float | None]:
    low, value, high = change.interval
    known = change.error > 0
    return {"value": value, "low": low if known else None, "high": high if known else None}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_csv(trials: Mapping[str, Sequence[Trial]]) -> str:
    """A line for each arm, seed and metric."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("arm", "seed", "metric", "percent"))
    for arm, of_arm in trials.items():
        for trial in of_arm:
            for metric, value in trial.values.items():
                writer.writerow((arm, trial.seed, metric, "" if math.isnan(value) else value))
    return file.getvalue()


def table(results: Mapping[str, Any], *, latex: bool = False) -> str:
    """Means and standard deviations of each arm, with what is published of the protocol.

    Args:
        results: what `as_json` gives.
        latex: a ``tabular`` instead of Markdown.
    """
    kinds = [k for k in ("bbox", "segm") if any(f"{k}/AP" in _metrics(a) for a in _arms(results))]
    names = {"bbox": "box", "segm": "mask"}
    headers = ["weights", "n"] + [f"{names[kind]} {m}" for kind in kinds for m in _COLUMNS]
    rows = []
    for name, arm in results["arms"].items():
        metrics = _metrics(arm)
        n = max((summary["n"] for summary in metrics.values()), default=0)
        cells = [_mean(metrics.get(f"{kind}/{m}")) for kind in kinds for m in _COLUMNS]
        rows.append([name, n, *cells])
    protocol = results["protocol"]
    for method, known in published_texts(protocol):
        cells = [known.get(f"{kind}/{m}", "-") for kind in kinds for m in _COLUMNS]
        rows.append([f"{method} (published)", "-", *cells])
    text = tabulate(
        rows,
        headers,
        tablefmt="latex_booktabs" if latex else "github",
        disable_numparse=True,  # 0.0 stays 0.0
        colalign=["left", *["right"] * (len(headers) - 1)],
    )
    text = text.replace("±", r"$\pm$") if latex else text
    if not results["deviations"]:
        return text
    note = f"Deviations from {protocol}: {'; '.join(results['deviations'])}."
    return f"{text}\n{'% ' if latex else ''}\n{'% ' if latex else ''}{note}"


def _arms(results: Mapping[str, Any]) -> list[Any]:
    return list(results["arms"].values())


def _metrics(arm: Mapping[str, Any]) -> dict[str, Any]:
    return arm["metrics"]


def _mean(summary: Mapping[str, Any] | None) -> str:
    if summary is None or summary["mean"] is None:
        return "-"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.1f}"
    return f"{summary['mean']:.1f}{spread}"


def published_texts(protocol: str) -> list[tuple[str, dict[str, str]]]:
    """What is published of a protocol: method, and metric ("bbox/AP") -> mean and spread."""
    known = published_for(protocol) if protocol in protocols() else []
    return [
        (
            row.method,
            {
                f"{kind}/{metric}": _published(value)
                for kind, values in (("bbox", row.box), ("segm", row.mask))
                for metric, value in values.items()
            },
        )
        for row in known
    ]


def _published(value: Value) -> str:
    return f"{value.mean:.1f}" + ("" if value.spread is None else f" ± {value.spread:.2f}")


def write_outputs(
    folder: Path, results: Mapping[str, Any], trials: Mapping[str, Sequence[Trial]]
) -> list[Path]:
    """Writes all of them, and returns their paths."""
    contents = {
        "results.json": json.dumps(results, indent=1),
        "results.csv": as_csv(trials),
        "table.md": table(results) + "\n",
        "table.tex": table(results, latex=True) + "\n",
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]
