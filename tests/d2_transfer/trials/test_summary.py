"""What trials that are done end in: files that agree with each other and with the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from finished_trials import write_scenes, write_trials
from html_page import Page

from cwrgp.commands.analysis_trials import read_trials
from d2_transfer.trials.differences import Difference, config_differences
from d2_transfer.trials.plan import Plan, write_plan
from d2_transfer.trials.summary import summarize

FIGURES = ("every_seed", "ap_over_iterations", "loss_over_iterations", "precision_over_recall")


class Finished:
    """Trials and their files."""

    def __init__(self, folder: Path) -> None:
        self.data = write_scenes(folder)
        self.output = folder / "out"
        self.plan = write_trials(self.output, self.data, **{"SOLVER.MAX_ITER": 100})
        self.results = summarize(self.output)
        self.html = (self.output / "report.html").read_text()
        self.page = Page(self.html)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("trials"))


def test_boxes_and_masks_have_tables_of_their_own(finished: Finished) -> None:
    heads = [row for row in finished.page.rows if row[1:3] == ["n", "AP"]]
    assert heads == 2 * [["", "n", "AP", "AP50", "AP75", "APs", "APm", "APl"]]
    for kind, row in zip(
        ("bbox", "segm"), (r for r in finished.page.rows if r[:2] == ["ours", "3"]), strict=True
    ):
        for metric, cell in zip(heads[0][2:], row[2:], strict=True):
            found = finished.results["arms"]["ours"]["metrics"][f"{kind}/{metric}"]
            assert cell == f"{found['mean']:.1f} ± {found['std']:.1f}"
    published = [row for row in finished.page.rows if row[0] == "CW-RGP, 200 epochs"]
    assert [row[2] for row in published] == ["40.7 ± 0.14", "35.5 ± 0.12"]


def test_the_analysis_of_checkpoints_reads_them(finished: Finished) -> None:
    found = read_trials(finished.output, {"ours": "mine.pth", "renamed": "ours.pkl", "no": "b"})
    expected = finished.results["arms"]["ours"]["metrics"]["bbox/AP"]
    assert list(found["ap"]) == ["ours", "renamed"]
    for ap in found["ap"].values():
        assert ap["arm"] == "ours" and ap["weights"] == ["ours.pkl"]
        assert all(ap[key] == expected[key] for key in ("mean", "std", "n"))
    assert "SOLVER.MAX_ITER 100" in found["deviations"]


def test_the_charts_of_the_page_are_files_too(finished: Finished) -> None:
    folder = finished.output / "figures"
    assert sorted(path.stem for path in folder.iterdir()) == sorted(FIGURES)
    for name in FIGURES:
        root = ElementTree.parse(folder / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = " ".join(element.text or "" for element in root.iter())
        assert "ours" in words and "random" in words


def test_areas_are_compared_where_they_are_asked_for(finished: Finished) -> None:
    areas = [f"{kind}/{metric}" for kind in ("bbox", "segm") for metric in ("APs", "APm", "APl")]
    plain = finished.results["comparisons"][0]["metrics"]
    assert plain.keys().isdisjoint(areas)
    results = summarize(finished.output, areas=True)
    found = results["comparisons"][0]["metrics"]
    assert found.keys() == plain.keys() | set(areas)
    assert {metric: found[metric] for metric in plain} == plain
    arms = results["arms"]
    for metric in areas:
        means = [arms[name]["metrics"][metric]["mean"] for name in ("ours", "random")]
        assert found[metric]["value"] == pytest.approx(means[0] - means[1])
        assert found[metric]["low"] < found[metric]["value"] < found[metric]["high"]
    # What was resampled stays, but is not shown unasked.
    assert summarize(finished.output) == finished.results


def test_areas_are_coco_s(tmp_path: Path, own_scenes: Any) -> None:
    data = f"voc:{own_scenes.root}:all"
    plan = write_trials(tmp_path / "out", write_scenes(tmp_path), seeds=1)
    cfg = plan.config.replace(f"coco:{tmp_path / 'truth.json'}:{tmp_path}", data)
    write_plan(tmp_path / "out", replace(plan, config=cfg))
    with pytest.raises(ValueError, match="are scored by voc07, which has no areas; omit them"):
        summarize(tmp_path / "out", areas=True)


def test_a_chart_without_values_leaves_no_file(tmp_path: Path) -> None:
    write_trials(tmp_path / "out", write_scenes(tmp_path))
    summarize(tmp_path / "out")
    for file in (tmp_path / "out").glob("cells/*/run/metrics.json"):
        file.unlink()
    summarize(tmp_path / "out")
    kept = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert kept == {"every_seed", "precision_over_recall"}


def test_the_config_is_compared_with_the_protocols(finished: Finished) -> None:
    expected = [
        {
            "key": "DATASETS.TRAIN",
            "protocol": "['coco_2017_train']",
            "here": f"['{finished.data}']",
        },
        {"key": "DATASETS.TEST", "protocol": "['coco_2017_val']", "here": f"['{finished.data}']"},
        {"key": "SOLVER.MAX_ITER", "protocol": "180000", "here": "100"},
    ]
    assert json.loads((finished.output / "results.json").read_text())["config"] == expected
    rows = finished.page.rows
    start = rows.index(["key", "protocol", "here"])
    assert rows[start + 1 : start + 4] == [list(difference.values()) for difference in expected]


def test_a_deviation_that_is_no_key_and_a_plan_without_the_protocols_config() -> None:
    plan = Plan(
        "p", "A: {B: 2, C: 3}", ("A.B 2", "6 of 6 test images"), (), (), {}, base="A: {B: 1}"
    )
    assert config_differences(plan) == [Difference("A.B", "1", "2")]
    assert config_differences(replace(plan, base="")) == [Difference("A.B", None, "2")]
