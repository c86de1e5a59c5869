"""What the page of the trials is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_detections import detections, write_coco

from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import parse_spec
from d2_transfer.scoring.compare import matches_of
from d2_transfer.scoring.results import check_results
from d2_transfer.scoring.truth import load_truth
from d2_transfer.scoring.weighted import precision_curve
from d2_transfer.trials.curves import read_curves, with_band
from d2_transfer.trials.errors import box_errors
from d2_transfer.trials.examples import find_examples
from d2_transfer.trials.plan import Arm, Plan
from d2_transfer.trials.result_files import cell_folder


def test_precision_over_recall_is_pycocotools(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = detections(data)
    truth = load_truth(parse_spec(data))
    entries = check_results(truth, found, "results", masks=False)
    gt = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(gt, gt.loadRes([dict(entry) for entry in found]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"][:, :, :3, 0, 2]  # the fourth class has no object
    for threshold in (0, 5):
        ours = precision_curve(matches_of(truth, entries, "bbox"), threshold)
        np.testing.assert_allclose(ours, expected[threshold].mean(axis=1), atol=1e-12)
    assert np.isnan(precision_curve([])).all()


def perfect(truth: Any) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox")
    things = [thing for thing in truth.content["annotations"] if not thing["iscrowd"]]
    return [{**{key: thing[key] for key in keys}, "score": 0.9} for thing in things]


def test_mistakes_are_told_apart(tmp_path: Path) -> None:
    truth = load_truth(parse_spec(write_coco(tmp_path)))
    right = perfect(truth)
    assert box_errors(truth, right) == pytest.approx(dict.fromkeys(box_errors(truth, []), 0.0))
    named = {3: 8, 8: 9, 9: 3}
    swapped = [{**entry, "category_id": named[entry["category_id"]]} for entry in right]
    found = box_errors(truth, swapped)
    assert found["Cls"] > 50 and max(found, key=lambda kind: found[kind]) == "Cls"
    found = box_errors(truth, right[::2])
    assert found["Miss"] > 20 and max(found, key=lambda kind: found[kind]) == "Miss"


def test_curves_end_with_the_training(tmp_path: Path) -> None:
    """What is evaluated after the last of 4 steps is recorded under 4, while steps count from 0."""
    files = {"random": ("", "")}
    plan = Plan("p", "SOLVER:\n  MAX_ITER: 4\n", (), (Arm("a", ("random",)),), (1,), files)
    run = cell_folder(tmp_path, plan.cell(1)) / "run"
    run.mkdir(parents=True)
    (run.parent / "result.json").write_text("{}")
    lines = [{"iteration": i, "bbox/AP": 10.0 * ap} for i, ap in ((1, 1), (4, 2))]
    (run / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_curves(tmp_path, plan, "bbox/AP") == {"a": [{2: 10.0, 4: 20.0}]}


def test_a_band_has_the_iterations_that_all_seeds_have() -> None:
    series = with_band("a", 1, [{10: 1.0, 20: 3.0, 30: 9.0}, {10: 2.0, 20: 5.0}], markers=True)
    assert list(series.x) == [10, 20] and list(series.y) == [1.5, 4.0]
    assert (list(series.low), list(series.high)) == ([1.0, 3.0], [2.0, 5.0])
    assert list(with_band("a", 1, [], markers=True).x) == []


def test_examples_are_the_largest_gains_and_losses(scenes: Any) -> None:
    spec = parse_spec(f"coco:{scenes.root / 'coco.json'}:{scenes.root / 'JPEGImages'}")
    data = load_annotated(spec)
    truth = load_truth(spec)
    right: dict[Any, list[dict[str, Any]]] = {}
    for entry in perfect(truth):
        right.setdefault(entry["image_id"], []).append(entry)
    assert sorted(right) == [1, 2, 3, 4, 5, 6]
    wrong = {image: [{**e, "score": 0.4} for e in entries] for image, entries in right.items()}
    first = {**right, 2: wrong[2]}
    second = {**right, 5: wrong[5], 6: right[6][:1]}
    gains, losses = find_examples(data, (first, second))
    assert [example.name for example in gains] == ["000001.png"]
    assert gains[0].scores == (0.0, 1.0)
    assert [example.name for example in losses] == ["000004.png", "000005.png"]
    assert losses[1].scores == (1.0, pytest.approx(2 / 3))
    truth_picture, reference, arm = gains[0].pictures
    assert truth_picture.shape == (128, 128, 3) and truth_picture.dtype == np.uint8
    assert (reference != arm).any() and (reference != truth_picture).any()
    assert find_examples(data, (right, right)) == ([], [])
