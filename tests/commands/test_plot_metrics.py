"""tools/plot_metrics.py: a picture of runs, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def runs(tmp_path):
    for name, slope in (("a", 1.0), ("b", -2.0)):
        records = [{"iteration": i, "total_loss": slope * i} for i in range(5)]
        records.append({"iteration": 4, "knn/top1": 50.0})
        (tmp_path / name).mkdir()
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (tmp_path / name / "metrics.json").write_text(lines)
    return tmp_path


def test_a_curve_for_each_run_in_its_colour(runs, run_tool):
    picture = runs / "loss.png"
    run_tool("tools/plot_metrics.py", runs / "a", f"other={runs / 'b'}", "--keys", "total_loss",
             "--output", picture, check=True)  # fmt: skip
    colours = {tuple(c) for c in np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
    alone = runs / "alone.svg"
    run_tool("tools/plot_metrics.py", runs / "a", "--keys", "total_loss", "knn/top1",
             "--output", alone, check=True)  # fmt: skip
    assert alone.read_text().count("<!-- knn/top1 -->") == 1


def test_a_mistake_is_one_line_with_what_there_is(runs, run_tool):
    for run, key, message in [
        (runs / "a", "loss", "has no loss; it has iteration, knn/top1, total_loss"),
        (runs, "total_loss", "metrics.json: no such file; name the OUTPUT_DIR of a run"),
    ]:
        done = run_tool("tools/plot_metrics.py", run, "--keys", key, "--output", runs / "x.png")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ") and message in done.stderr
    done = run_tool("tools/plot_metrics.py", runs / "a", "--keys", "total_loss",
                    "--output", runs / "x.jpeg3")  # fmt: skip
    assert done.returncode == 2 and "'jpeg3' is not supported" in done.stderr
