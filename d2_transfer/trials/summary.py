"""From the cells that are done to the results."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwrgp.errors import MissingPackage
from cwrgp.report.page import write_page
from d2_transfer.data.load import LoadedData
from d2_transfer.scoring.truth import make_truth
from d2_transfer.trials.cell import base_config
from d2_transfer.trials.curves import read_curves
from d2_transfer.trials.examples import Example, find_examples
from d2_transfer.trials.output import as_json, published_texts, write_outputs
from d2_transfer.trials.plan import Plan, read_plan
from d2_transfer.trials.report import ReportData, build_page, draw_charts
from d2_transfer.trials.result_files import cell_folder, read_result
from d2_transfer.trials.results import Comparison, compare_arms, read_trials
from d2_transfer.trials.sweep import best_rate, swept
from d2_transfer.trials.test_set import digest_of, load_test_set

logger = logging.getLogger(__name__)


def summarize(output: Path, *, reference: str | None = None, areas: bool = False) -> dict[str, Any]:
    """Writes and returns the results of the cells that are done.

    Args:
        output: folder of the trials.
        reference: the arm that the others are compared with; None: the first.
        areas: compare APs, APm and APl as well. Each cell is then resampled anew, in about four
            times the time, and kept.

    Raises:
        FileNotFoundError: the folder holds no trials.
        ValueError: no such reference, ``areas`` of data in VOC form, or another test set than the
            cells had.
    """
    plan = existing_plan(output)
    cfg = base_config(plan)
    name = cfg.DATASETS.TEST[0]
    data = load_test_set(cfg)
    if plan.truth and digest_of(make_truth(data)) != plan.truth:
        raise ValueError(
            f"DATASETS.TEST {name!r}: its annotations have changed since the trials were started:"
            " restore them, or start anew with --restart"
        )
    images = len(data.data.images)
    trials = read_trials(output, plan, data, areas=areas)
    comparisons = compare_arms(plan, trials, images, reference=reference)
    parts = {}
    for percent in plan.fractions[:-1]:
        of_part = read_trials(output, plan, data, percent=percent, areas=areas)
        parts[percent] = of_part, compare_arms(plan, of_part, images, reference=reference)
    found = {arm: aps for arm, aps in swept(output, plan).items() if set(aps) == {*plan.rates}}
    rate = cfg.SOLVER.BASE_LR
    chosen = {arm: (aps, _best_rate(aps, rate)) for arm, aps in found.items() if aps}
    results = as_json(plan, name, images, trials, comparisons, parts, chosen)
    write_outputs(output, results, trials)
    report = ReportData(
        results=results,
        trials=trials,
        comparisons=comparisons,
        ap=read_curves(output, plan, "bbox/AP"),
        loss=read_curves(output, plan, "total_loss"),
        published=published_texts(plan.protocol),
        examples=_examples(output, plan, data, comparisons, list(cfg.INPUT.PIXEL_RANGE)),
        fractions={**{p: of_part for p, (of_part, _) in parts.items()}, plan.fractions[-1]: trials},
        command=f"cwrgp-trials --output {output} --summarize",
    )
    figures = output / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    write_page(output / "report.html", build_page(report, draw_charts(report, figures)))
    return results


def _best_rate(aps: Mapping[float, float], default: float) -> float | None:
    """None: every training diverged."""
    return None if all(map(math.isnan, aps.values())) else best_rate(aps, default)


def _examples(
    output: Path,
    plan: Plan,
    data: LoadedData,
    comparisons: Sequence[Comparison],
    pixel_range: Sequence[float],
) -> tuple[list[Example], list[Example]]:
    """Of the first comparison and its first seed; none where images or OpenCV are missing."""
    if not comparisons or any(image.file is None for image in data.data.images):
        return [], []
    first = comparisons[0]
    runs = []
    for name in (first.reference, first.arm):
        cell = next(c for c in plan.trial_cells() if (c.arm, c.seed) == (name, first.seeds[0]))
        result = read_result(output, cell)
        assert result is not None
        path = cell_folder(output, cell) / result["detections"]
        found: dict[Any, list[dict[str, Any]]] = {}
        for entry in json.loads(path.read_text()):
            found.setdefault(entry["image_id"], []).append(entry)
        runs.append(found)
    try:
        return find_examples(data, (runs[0], runs[1]), pixel_range=pixel_range)
    except MissingPackage as error:
        logger.warning(f"The report has no pictures: {error}")
        return [], []


def existing_plan(output: Path) -> Plan:
    """The plan of a folder.

    Raises:
        FileNotFoundError: the folder holds no trials.
    """
    plan = read_plan(output)
    if plan is None:
        raise FileNotFoundError(
            f"output {output} holds no trials: give --config-file and --weights"
        )
    return plan
