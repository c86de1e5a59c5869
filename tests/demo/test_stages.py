"""The demo's plan: what is done is not done again, what failed says so in one line."""

from __future__ import annotations

import argparse
import importlib.util

import pytest
from repository import REPOSITORY

import stages
from cwrgp.commands.pretrain import parse_args as parse_pretrain
from d2_transfer.commands.trials import parse_args as parse_trials


def test_the_plan_goes_from_images_to_detectors(tmp_path):
    planned = stages.plan(tmp_path, 3, 2)
    kinds = [stage.kind for stage in planned]
    assert kinds == ["scenes", "pretrain", "convert", "trials"]
    assert len({stage.folder for stage in planned}) == len({stage.name for stage in planned}) == 4
    args = parse_trials(planned[-1].command[1:])
    assert args.weights == ["random=random", f"pretrained={tmp_path / 'encoder.pkl'}"]
    assert (args.trials, args.jobs) == (3, 2)
    # As many threads as cores, whatever the number of cores and of trials.
    for trials, cores in ((1, 1), (1, 8), (2, 2), (8, 4)):
        stage = stages.plan(tmp_path, trials, cores)[-1]
        assert 1 <= stage.threads * parse_trials(stage.command[1:]).jobs <= cores
    assert all((stages.REPOSITORY / stage.command[0]).is_file() for stage in planned)


def test_a_killed_run_is_resumed(tmp_path):
    (stage,) = (s for s in stages.plan(tmp_path, 1, 1) if s.kind == "pretrain")
    assert parse_pretrain(stage.command[1:]).resume_or_start


def make_stage(tmp_path, code):
    script = tmp_path / "script.py"
    script.write_text(code)
    out = tmp_path / "out"
    return stages.Stage("trials", "try", (str(script),), out, out / "DONE", threads=1)


def test_a_stage_is_logged_timed_and_can_be_forgotten(tmp_path):
    code = "import os\nos.makedirs('{0}/out', exist_ok=True)\n"
    code += "print('threads', os.environ['OMP_NUM_THREADS'])\n"
    code += "open('{0}/out/DONE', 'w').close()\n"
    stage = make_stage(tmp_path, code.format(tmp_path))
    stages.run(stage, tmp_path)
    assert stage.done.exists()
    assert (tmp_path / "logs" / "out.txt").read_text() == "threads 1\n"
    first = stage.seconds(tmp_path)
    stages.run(stage, tmp_path)
    assert stage.seconds(tmp_path) > first > 0, "the time of all attempts"
    stages.forget(stage, tmp_path)
    assert not stage.folder.exists() and stage.seconds(tmp_path) is None


def test_a_stage_that_fails_names_its_last_line_and_its_log(tmp_path):
    stage = make_stage(tmp_path, "print('good')\nraise SystemExit('error: no data')\n")
    with pytest.raises(
        ValueError, match=r"try failed: error: no data \(the whole log is .*out.txt"
    ):
        stages.run(stage, tmp_path)
    assert not stage.done.exists()


def test_what_came_of_another_recipe_is_done_again(tmp_path, monkeypatch):
    path = REPOSITORY / "tools" / "demo" / "__main__.py"
    spec = importlib.util.spec_from_file_location("demo_main", path)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    for name in ("scenes", "pretrain"):
        (tmp_path / name).mkdir()
    (tmp_path / "scenes" / "stamp.json").touch()
    (tmp_path / "recipe.txt").write_text("another")
    (tmp_path / "trials").mkdir()
    (tmp_path / "pretrain" / "model_final.pth").touch()
    done = []
    monkeypatch.setattr(stages, "run", lambda stage, root: done.append(stage.kind))
    demo.main(argparse.Namespace(output=tmp_path, trials=1, again=None, only="scenes"))
    assert done == ["scenes"]
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.txt"]
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "stamp.json").touch()
    demo.main(argparse.Namespace(output=tmp_path, trials=1, again=None, only="scenes"))
    assert done == ["scenes"]
