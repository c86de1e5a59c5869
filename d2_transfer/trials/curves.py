"""What the cells recorded on the way: AP and losses over iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cwrgp.report.figures import Series
from cwrgp.trackers.jsonl import NAME, read_metrics
from d2_transfer.trials.cell import cell_config
from d2_transfer.trials.plan import Plan
from d2_transfer.trials.result_files import cell_folder, read_result

Curve = Mapping[float, float]


def read_curves(output: Path, plan: Plan, metric: str) -> dict[str, list[Curve]]:
    """For each arm, a curve of each finished seed: iterations done -> value.

    Args:
        output: folder of the trials.
        plan: theirs.
        metric: as in ``metrics.json``, such as "bbox/AP" or "total_loss".
    """
    found: dict[str, list[Curve]] = {arm.name: [] for arm in plan.arms}
    for cell in plan.trial_cells():
        if read_result(output, cell) is None:
            continue
        records = read_metrics(cell_folder(output, cell) / "run" / NAME)
        # What comes after the last step is recorded under their number, and the rest under that of
        # its step, from 0. A resumed run may have recorded an iteration twice: the last one counts.
        last = cell_config(plan, cell, output).SOLVER.MAX_ITER
        curve = {min(r["iteration"] + 1, last): r[metric] for r in records if metric in r}
        found[cell.arm].append({int(i): v for i, v in curve.items() if math.isfinite(v)})
    return found


def with_band(label: str, style: int, curves: Sequence[Curve], *, markers: bool) -> Series:
    """The mean over seeds, and a band from the lowest to the highest.

    Iterations that only some seeds have are omitted: a mean over fewer would jump.
    """
    x = sorted(set.intersection(*map(set, curves))) if curves else []
    at = [[curve[i] for curve in curves] for i in x]
    mean = [math.fsum(values) / len(values) for values in at]
    low, high = [min(values) for values in at], [max(values) for values in at]
    return Series(label, x, mean, style, low, high, markers=markers)
