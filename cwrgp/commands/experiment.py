"""An experiment: its plan, the cells that run it, and the files that it ends in."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.analysis.page import write_outputs
from cwrgp.analysis.results import RESULTS, collect
from cwrgp.builders.data import build_pretraining_images
from cwrgp.builders.experiments import Arm, arm_config, experiment_arms, set_keys
from cwrgp.builders.methods import build_method
from cwrgp.builders.solver import build_learning_rate, build_plan
from cwrgp.builders.target_probe import check_target_volatility
from cwrgp.builders.weights import load_weights
from cwrgp.cells import RUN, Cell, check_idle, folder_result, run_cells, run_once
from cwrgp.commands.analysis_run import check_enough, measured_images, pretrain_and_measure
from cwrgp.commands.experiment_plan import (
    PLAN,
    Plan,
    as_packaged,
    changes,
    make_plan,
    read_plan,
    with_fast_views,
)
from cwrgp.config import validate_cfg
from cwrgp.jobs import locked
from cwrgp.preemption import stop_request


def run_experiment(
    name: str, cfg: CfgNode, output: Path, *, seeds: int, jobs: int, restart: bool
) -> dict[str, Any]:
    """Runs what is left of an experiment and writes its files.

    Args:
        name: of the experiment.
        cfg: of all runs.
        output: folder of the experiment.
        seeds: runs of each arm.
        jobs: runs at once.
        restart: remove what the folder holds of an experiment.

    Returns:
        The content of ``results.json``; see `cwrgp.analysis.results.collect`.

    Raises:
        ValueError, FileNotFoundError: what cannot work, another process does runs of the folder,
            or a run failed.
        Preempted: a signal stopped the runs; the same call goes on.
    """
    arms = experiment_arms(name)
    cfg = as_packaged(with_fast_views(cfg), set_keys(name) - {"DATA.ROOT"})
    if seeds < 1:
        raise ValueError(f"seeds {seeds} is below 1")
    _check_runs(cfg, arms)
    if (output / RESULTS).exists() and not (output / PLAN).exists():
        raise ValueError(f"output {output} holds another analysis; choose another folder")
    with locked(output):
        check_idle(sorted((output / "runs").glob("*")))
        plan = make_plan(name, cfg, output, seeds=seeds, restart=restart)
        command = [sys.executable, "-m", "cwrgp.commands.analyze", "--output", str(output), "--run"]
        cells = [
            Cell(run, _folder(output, run), [*command, run], output / "logs" / f"{run}.txt")
            for run in (run_name(*arm_and_seed) for arm_and_seed in plan.runs)
        ]
        try:
            run_cells(cells, at_once=jobs, noun="runs")
        finally:
            results = summarize(output, plan)  # of what is done, if a run failed or was stopped
    return results


def summarize(output: Path, plan: Plan) -> dict[str, Any]:
    """Writes the files of the runs that are done; {} where none is."""
    found = [
        (arm.series, arm.x, seed, result)
        for arm, seed in plan.runs
        if (result := folder_result(_folder(output, run_name(arm, seed))))
    ]
    if not found:
        return {}
    cfg = plan.base
    measured, held_out = measured_images(cfg)
    which = ", held out" if held_out else " of the training images"
    probe = "training and test images" if held_out else "training images, each left out in turn"
    settings = {
        "data": cfg.DATA.ROOT,
        "training images": len(build_pretraining_images(cfg)),
        "measured images": f"{len(measured):,}{which}",
        "k-NN": f"k = {cfg.EVAL.KNN_K}, {_limit(cfg.EVAL.MAX_IMAGES)} {probe}",
        "epochs": cfg.SOLVER.EPOCHS,
        "learning rate": f"{cfg.SOLVER.BASE_LR:g}",
        "batch": ", ".join(map(str, sorted(_batch_sizes(plan)))),
        "encoder": f"{cfg.MODEL.ARCH}, {cfg.MODEL.STEM} stem, {cfg.DATA.IMAGE_SIZE} px",
    }
    complete = len(found) == len(plan.runs)
    results = collect(plan.experiment, found, plan.seeds, settings, complete=complete)
    arguments = ["--experiment", plan.experiment, "--data", cfg.DATA.ROOT]
    arguments += ["--seeds", str(len(plan.seeds)), "--output", str(output), *changes(plan)]
    write_outputs(output, results, f"cwrgp-analyze {shlex.join(arguments)}")
    return results


def _limit(count: int) -> str:
    return f"at most {count:,}" if count else "all"


def _batch_sizes(plan: Plan) -> set[int]:
    return {arm_config(plan.base, arm, 0, "").SOLVER.BATCH_SIZE for arm, _ in plan.runs}


def run_one(output: Path, name: str) -> None:
    """Does one run of the experiment in a folder, or goes on with it.

    Raises:
        ValueError: no such run, or as `pretrain_and_measure`.
        FileNotFoundError: the folder holds no experiment.
        Preempted: a signal stopped it.
    """
    plan = read_plan(output)
    if plan is None:
        raise FileNotFoundError(f"output {output} holds no experiment")
    runs = {run_name(arm, seed): (arm, seed) for arm, seed in plan.runs}
    if name not in runs:
        raise ValueError(f"run {name!r} is unknown; choose one of {', '.join(runs)}")
    folder = _folder(output, name)
    cfg = arm_config(plan.base, *runs[name], str(folder / RUN))
    with stop_request() as stop:
        run_once(folder, lambda: pretrain_and_measure(cfg, stop))


def run_name(arm: Arm, seed: int) -> str:
    """Of a run's folder."""
    return f"{arm.name}-seed{seed}"


def _check_runs(cfg: CfgNode, arms: Sequence[Arm]) -> None:
    """Builds the method of every arm, and looks at the images."""
    widths: list[int] = []
    for arm in arms:
        run = arm_config(cfg, arm, 0, "output")
        validate_cfg(run)
        if run.SOLVER.EPOCHS == 0:
            raise ValueError("SOLVER.EPOCHS 0 is not for experiments; give a number of epochs")
        method = build_method(run)
        check_target_volatility(run, method)
        if run.MODEL.WEIGHTS and not widths:
            load_weights(run, method)
        build_learning_rate(run, build_plan(run, len(build_pretraining_images(run))))
        widths += [run.MODEL.PROJECTOR.OUT, int(method.encoder.inplanes)]  # type: ignore[arg-type]
    check_enough(cfg, len(measured_images(cfg)[0]), widths)


def _folder(output: Path, run: str) -> Path:
    return output / "runs" / run
