"""TensorBoard and W&B, written by the real packages and read back."""

from __future__ import annotations

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import offline_files, read_history, read_records

from cwrgp.errors import MissingPackage
from cwrgp.trackers.build import check_trackers, open_trackers

CONFIG = {"SOLVER": {"BASE_LR": 0.5}, "LOGGERS": ["wandb"]}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def log_steps(name, folder, start, stop):
    """One start of a run, from its folder's name to the last record."""
    (tracker,) = open_trackers([name], folder, start_step=start, config=CONFIG)
    for step in range(start, stop):
        tracker.log({"total_loss": 10.0 * step, "knn/top1": 50.0}, step)
    tracker.close()


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path):
    log_steps("tensorboard", tmp_path, 0, 6)
    log_steps("tensorboard", tmp_path, 4, 8)
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = events.Scalars("total_loss")
    assert [(s.step, s.value) for s in scalars] == [(step, 10.0 * step) for step in range(8)]
    assert len(events.Scalars("knn/top1")) == 8


def test_wandb_has_the_values_and_the_configuration(tmp_path):
    log_steps("wandb", tmp_path, 0, 3)
    (path,) = offline_files(tmp_path)
    assert read_history(path) == [
        {"iteration": step, "total_loss": 10.0 * step, "knn/top1": 50.0} for step in range(3)
    ]
    (run,) = [r.run for r in read_records(path) if r.WhichOneof("record_type") == "run"]
    assert run.run_id == (tmp_path / "wandb_run_id").read_text().strip()
    assert run.display_name == tmp_path.name
    values = {update.key: update.value_json for update in run.config.update}
    assert values["SOLVER"] == '{"BASE_LR":0.5}'


def test_wandb_goes_on_with_its_run_on_resume_and_starts_another_otherwise(tmp_path):
    log_steps("wandb", tmp_path, 0, 6)
    first = (tmp_path / "wandb_run_id").read_text()
    log_steps("wandb", tmp_path, 4, 6)
    assert (tmp_path / "wandb_run_id").read_text() == first
    again = offline_files(tmp_path)
    assert {path.stem for path in again} == {f"run-{first.strip()}"}
    # The repeated iterations are there: the axis is "iteration", not W&B's own step.
    assert [r["iteration"] for path in again for r in read_history(path)] == [
        0,
        1,
        2,
        3,
        4,
        5,
        4,
        5,
    ]
    metrics = {
        (r.metric.name or r.metric.glob_name, r.metric.step_metric)
        for r in read_records(again[-1])
        if r.WhichOneof("record_type") == "metric"
    }
    assert ("*", "iteration") in metrics
    log_steps("wandb", tmp_path, 0, 1)
    assert (tmp_path / "wandb_run_id").read_text() != first


WITHOUT_LOGIN = """
import sys
from pathlib import Path
from cwrgp.trackers.build import open_trackers
try:
    open_trackers(["wandb"], Path(sys.argv[1]), start_step=0, config={})
except ValueError as error:
    print(error)
"""


def test_wandb_without_a_login_is_one_line(tmp_path, run_tool):
    # W&B reads its environment once for a process, and looks for a login in HOME.
    environment = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path)}
    done = run_tool("-c", WITHOUT_LOGIN, tmp_path, check=True, **environment)
    assert "Weights & Biases does not start: No API key configured." in done.stdout
    assert done.stdout.endswith("WANDB_MODE=offline keeps the records on this machine\n")


def test_an_unknown_tracker_is_refused():
    message = r"^LOGGERS 'comet' is unknown; choose from \['tensorboard', 'wandb'\] \(metrics.json"
    with pytest.raises(ValueError, match=message):
        check_trackers(["tensorboard", "comet"], "LOGGERS")


def test_a_missing_package_is_one_line_with_the_command(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name)
    )
    message = r"^LOGGERS 'wandb' needs a package: pip install 'cwrgp\[wandb\]'$"
    with pytest.raises(MissingPackage, match=message):
        check_trackers(["wandb"], "LOGGERS")
    with pytest.raises(MissingPackage, match="^tracker 'wandb' needs a package"):
        check_trackers(["wandb"])
    check_trackers(["tensorboard"])


def test_a_folder_named_wandb_is_not_the_package(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: importlib.machinery.PathFinder.find_spec(
            name, [str(tmp_path)]
        ),
    )  # fmt: skip
    with pytest.raises(MissingPackage, match="needs a package"):
        check_trackers(["wandb"])
