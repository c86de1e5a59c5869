"""What the trials give: values of each arm, and differences with intervals and verdicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cwrgp.file_io.atomic import replacing
from cwrgp.statistics import (
    TrialDifference,
    bonferroni_level,
    error_of_images,
    trial_difference,
)
from d2_transfer.data.load import LoadedData
from d2_transfer.scoring.compare import ROUNDING, matches_of, metrics_under
from d2_transfer.scoring.results import check_results
from d2_transfer.scoring.truth import Truth, make_truth
from d2_transfer.scoring.weighted import precision_curve, resampled_weights
from d2_transfer.trials.errors import box_errors
from d2_transfer.trials.plan import Arm, Cell, Plan
from d2_transfer.trials.result_files import cell_folder, read_result

RESAMPLES = 500
AREA_METRICS = ("APs", "APm", "APl")
KINDS = {"bbox": "box AP", "segm": "mask AP"}


@dataclass(frozen=True)
class Trial:
    """A finished cell.

    Attributes:
        seed: of the fine-tuning.
        values: metric -> percent; "bbox/AP", "segm/AP50", "bbox/AP-<class>". nan: no objects.
        resampled: metric -> float64 (resamples,), the same under resampled images.
        precision: kind -> float64 (101,), precision over recall at an IoU of .5.
        errors: kind of mistake -> points of box AP50 that mending it would add.
        digest: of its detections.
        seconds: of its last start.
        environment: versions and hardware.
    """

    seed: int
    values: Mapping[str, float]
    resampled: Mapping[str, np.ndarray]
    precision: Mapping[str, np.ndarray]
    errors: Mapping[str, float]
    digest: str
    seconds: float
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """An arm against the reference.

    Attributes:
        arm: name.
        reference: name.
        seeds: that both have.
        changes: metric -> arm minus reference, in points. Those of the APs in `KINDS` hold together
            with those of all other arms and fractions; all others are not adjusted for their
            number.
        verdict: a sentence for each of `KINDS` that is scored.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    changes: Mapping[str, TrialDifference]
    verdict: str


def read_trials(
    output: Path,
    plan: Plan,
    data: LoadedData,
    *,
    percent: float | None = None,
    areas: bool = False,
) -> dict[str, list[Trial]]:
    """The finished cells of each arm, by seed.

    Args:
        output: folder of the trials.
        plan: theirs.
        data: the test set.
        percent: of the training images; None: the largest of the plan.
        areas: resample APs, APm and APl too, in about four times the time.

    Raises:
        ValueError: ``areas`` of data that are not scored by COCO's metric.
    """
    truth = make_truth(data)
    if areas and truth.protocol != "coco":
        raise ValueError(f"the data are scored by {truth.protocol}, which has no areas; omit them")
    weights = resampled_weights(len(truth.content["images"]), RESAMPLES, np.random.default_rng(0))
    found: dict[str, list[Trial]] = {arm.name: [] for arm in plan.arms}
    for cell in plan.trial_cells(percent):
        result = read_result(output, cell)
        if result is not None:
            found[cell.arm].append(_read_trial(output, cell, result, truth, weights, areas))
    return found


def _read_trial(
    output: Path,
    cell: Cell,
    result: Mapping[str, Any],
    truth: Truth,
    weights: np.ndarray,
    areas: bool,
) -> Trial:
    folder = cell_folder(output, cell)
    content = (folder / result["detections"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    kinds = [kind for kind in KINDS if kind in result["scores"]]
    cache = folder / "analysis.npz"
    arrays = _cached(cache, digest)
    if arrays is None or (areas and "resampled bbox/APs" not in arrays):
        entries = check_results(truth, json.loads(content), cell.name, masks="segm" in kinds)
        arrays = {f"error {name}": np.array(v) for name, v in box_errors(truth, entries).items()}
        for kind in kinds:
            arrays[f"precision {kind}"] = precision_curve(matches_of(truth, entries, kind))
            found = metrics_under(truth, entries, kind, weights, areas)
            arrays |= {f"resampled {_metric(kind, name)}": v for name, v in found.items()}
        with replacing(cache) as path, path.open("wb") as file:
            named: dict[str, Any] = {"digest": np.array(digest), **arrays}
            np.savez_compressed(file, **named)
    values: dict[str, float] = {}
    for kind in kinds:
        scores = dict(result["scores"][kind])
        classes = scores.pop("per_class")
        values |= {f"{kind}/{name}": _number(value) for name, value in scores.items()}
        values |= {f"{kind}/AP-{name}": _number(value) for name, value in classes.items()}
    return Trial(
        seed=cell.seed,
        values=values,
        resampled={
            name: values_of
            for name, values_of in _of_kind(arrays, "resampled ").items()
            if areas or name.rpartition("/")[2] not in AREA_METRICS
        },
        precision=_of_kind(arrays, "precision "),
        errors={name: float(value) for name, value in _of_kind(arrays, "error ").items()},
        digest=digest,
        seconds=result["seconds"],
        environment=result["environment"],
    )


def _of_kind(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}


def _cached(path: Path, digest: str) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    with np.load(path) as file:
        if str(file["digest"]) != digest:
            return None
        return {name: file[name] for name in file.files if name != "digest"}


def _metric(kind: str, name: tuple[str, ...]) -> str:
    return f"{kind}/{name[0]}" if len(name) == 1 else f"{kind}/AP-{name[1]}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def compare_arms(
    plan: Plan, trials: Mapping[str, Sequence[Trial]], images: int, *, reference: str | None = None
) -> list[Comparison]:
    """Each arm against the reference, on the seeds that both have finished.

    Args:
        plan: of the trials.
        trials: what `read_trials` gives.
        images: of the test set.
        reference: name of an arm; None: the first.

    Raises:
        ValueError: no such arm.
    """
    arms = {arm.name: arm for arm in plan.arms}
    reference = reference or plan.arms[0].name
    if reference not in arms:
        raise ValueError(f"reference {reference!r} is no arm; choose one of {', '.join(arms)}")
    others = [name for name in arms if name != reference]
    scored = {metric for found in trials.values() for trial in found for metric in trial.values}
    kinds = [kind for kind in KINDS if f"{kind}/AP" in scored]
    level = bonferroni_level(0.95, max(1, len(others) * len(kinds) * len(plan.fractions)))
    found = []
    for name in others:
        pair = arms[name], arms[reference]
        a = {trial.seed: trial for trial in trials[reference]}
        b = {trial.seed: trial for trial in trials[name]}
        seeds = tuple(seed for seed in plan.seeds if seed in a and seed in b)
        if not seeds:
            continue
        changes = _changes([(a[seed], b[seed]) for seed in seeds], kinds, level)
        identical = all(a[seed].digest == b[seed].digest for seed in seeds)
        sentences = [
            verdict(changes[f"{kind}/AP"], *pair, KINDS[kind], images=images, level=level)
            for kind in kinds
        ]
        text = "identical runs" if identical else " ".join(sentences)
        found.append(Comparison(name, reference, seeds, {} if identical else changes, text))
    return found


def _changes(
    pairs: Sequence[tuple[Trial, Trial]], kinds: Sequence[str], level: float
) -> dict[str, TrialDifference]:
    """Second minus first of each metric that all trials have."""
    found = {}
    joint = {f"{kind}/AP" for kind in kinds}
    for metric in pairs[0][0].resampled:
        differences = [b.values[metric] - a.values[metric] for a, b in pairs]
        if np.isnan(differences).any():
            continue
        resampled = np.stack([b.resampled[metric] - a.resampled[metric] for a, b in pairs])
        # A resample may have no object of a class.
        resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
        error = error_of_images(resampled) if resampled.shape[1] > 1 else 0.0
        found[metric] = trial_difference(
            differences,
            error if error > ROUNDING else 0.0,
            level=level if metric in joint else 0.95,
        )
    return found


def verdict(
    change: TrialDifference, arm: Arm, reference: Arm, metric: str, *, images: int, level: float
) -> str:
    """What an interval says, as a sentence.

    Args:
        change: arm minus reference.
        arm: whose weights are asked for.
        reference: what they are compared with.
        metric: "box AP" or "mask AP".
        images: of the test set.
        level: of the interval.
    """
    low, value, high = change.interval
    word = "better" if value > 0 else "worse"
    if value < 0:
        low, high = -high, -low
    who = f"These two runs: {arm.name}"
    if change.seeds > 1:
        own = arm.repeated and (reference.repeated or reference.weights == ("random",))
        who = f"{'The pretraining' if own else 'The weights'} {arm.name}"
    verb = "is" if change.seeds == 1 or "pretraining" in who else "are"
    seeds = "1 seed" if change.seeds == 1 else f"{change.seeds} seeds"
    design = f"{seeds}, {images:,} images"
    shown = round(value, 1) + 0.0  # -0.0 becomes 0.0
    if not change.error:
        return (
            f"{who} and {reference.name} differ by {shown:+.1f} {metric}, but neither other seeds"
            f" nor other images show how much that varies, so there is no interval ({design})."
        )
    together = "95 % interval" if level == 0.95 else "joint 95 % interval"
    interval = f"{together} {low:.1f} to {high:.1f} ({design})"
    if low > 0:
        return (
            f"{who} {verb} {word} than {reference.name} by {abs(value):.1f} {metric}, {interval}."
        )
    text = (
        f"{who} and {reference.name} differ by {shown:+.1f} {metric}, inside the noise:"
        f" {together} {change.interval.low:.1f} to {change.interval.high:.1f} ({design}). This"
        f" design shows differences of {change.detectable(level=level):.1f} AP or more with 80 %"
        " power"
    )
    # One seed does not show what more of them would give.
    more_images = change.seeds > 1 and 2 * change.image_error**2 > change.error**2
    return text + ("; more test images are needed, not more seeds." if more_images else ".")
