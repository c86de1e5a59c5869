"""metrics.json after a kill: nothing twice, nothing half."""

from __future__ import annotations

from cwrgp.engine.progress import MetricWriter
from cwrgp.trackers.jsonl import JsonlTracker, read_metrics


def open_writer(folder, start):
    trackers = [JsonlTracker(folder, start_step=start, config={})]
    return MetricWriter(trackers, start_step=start, total_steps=8, steps_per_epoch=4)


def test_records_after_the_last_checkpoint_are_dropped_on_resume(tmp_path):
    path = tmp_path / "metrics.json"
    with open_writer(tmp_path, 0).shown() as writer:
        for step in range(6):
            writer.write(step, {"total_loss": float(step)})
    with path.open("a") as file:
        file.write('{"iteration": 6, "total_lo')  # killed while it wrote
    assert [r["iteration"] for r in read_metrics(path)] == [0, 1, 2, 3, 4, 5]
    with open_writer(tmp_path, 4).shown() as writer:
        writer.write(4, {"total_loss": 40.0})
    assert [r["total_loss"] for r in read_metrics(path)] == [0, 1, 2, 3, 40]


def test_progress_counts_epochs_and_iterations_from_one(tmp_path):
    with open_writer(tmp_path, 0).shown() as writer:
        line, eta = writer.progress(3)
        assert "epoch: 1/2  iter: 4/8" in line and eta > 0
        assert writer.progress(7)[1] == 0
