"""metrics.json after a kill: nothing twice, nothing half."""

from __future__ import annotations

import math

from cwrgp.trackers.jsonl import JsonlTracker, read_metrics


def test_records_after_the_last_checkpoint_are_dropped_and_a_cut_line_is_omitted(tmp_path):
    path = tmp_path / "metrics.json"
    first = JsonlTracker(tmp_path, start_step=0, config={})
    for step in range(6):
        first.log({"total_loss": float(step)}, step)  # on the disk without close
    with path.open("a") as file:
        file.write('{"iteration": 6, "total_lo')
    assert [r["iteration"] for r in read_metrics(path)] == [0, 1, 2, 3, 4, 5]
    second = JsonlTracker(tmp_path, start_step=4, config={})
    second.log({"total_loss": 40.0, "knn/top1": math.inf}, 4)
    second.close()
    assert [r["total_loss"] for r in read_metrics(path)] == [0, 1, 2, 3, 40]
    assert read_metrics(path)[-1]["knn/top1"] == math.inf
    first.close()


def test_a_new_run_begins_an_empty_file(tmp_path):
    JsonlTracker(tmp_path, start_step=0, config={}).log({"a": 1.0}, 0)
    JsonlTracker(tmp_path, start_step=0, config={}).close()
    assert read_metrics(tmp_path / "metrics.json") == []
    assert read_metrics(tmp_path / "none.json") == []
