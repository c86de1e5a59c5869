"""An experiment: its plan, the cells that run it, and the files that it ends in."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.analysis.page import write_outputs
from cwrgp.analysis.results import RESULTS, collect
from cwrgp.builders.automatic import resolve_number_format
from cwrgp.builders.data import build_pretraining_images
from cwrgp.builders.experiments import EXPERIMENTS, Arm, arm_config, experiment_arms, set_keys
from cwrgp.builders.methods import build_method
from cwrgp.builders.solver import build_learning_rate, build_plan
from cwrgp.builders.target_probe import check_target_volatility
from cwrgp.builders.weights import load_weights
from cwrgp.cells import RUN, Cell, check_idle, folder_result, run_cells, run_once
from cwrgp.commands.analysis_run import check_enough, measured_images, pretrain_and_measure
from cwrgp.config import get_cfg, validate_cfg
from cwrgp.config.checks import value_of
from cwrgp.config.node import flatten
from cwrgp.config_files import find_config, merge_file, merge_values
from cwrgp.file_io.atomic import write_text
from cwrgp.jobs import locked
from cwrgp.launch import local_device
from cwrgp.preemption import stop_request

CONFIG = "quick/pretrain_analysis_r18.yaml"
PLAN = "plan.json"
_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What an experiment runs.

    Attributes:
        experiment: its name.
        config: of all runs, as YAML; what the arms set, seed and folder are those of the runs.
        number_format: keys of the config that were ``auto``, the same for all runs.
        seeds: of each arm.
    """

    experiment: str
    config: str
    number_format: tuple[str, str]
    seeds: tuple[int, ...]

    @cached_property
    def runs(self) -> list[tuple[Arm, int]]:
        """Seed by seed, so that what is finished early compares all arms."""
        return [(arm, seed) for seed in self.seeds for arm in experiment_arms(self.experiment)]

    @property
    def base(self) -> CfgNode:
        """The config of all runs."""
        cfg = get_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(self.config))
        cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.MEMORY_FORMAT = self.number_format
        return cfg


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
    cfg = _as_packaged(_with_fast_views(cfg), set_keys(name) - {"DATA.ROOT"})
    if seeds < 1:
        raise ValueError(f"seeds {seeds} is below 1")
    _check_runs(cfg, arms)
    if (output / RESULTS).exists() and not (output / PLAN).exists():
        raise ValueError(f"output {output} holds another analysis; choose another folder")
    with locked(output):
        check_idle(sorted((output / "runs").glob("*")))
        plan = _make_plan(name, cfg, output, seeds=seeds, restart=restart)
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
    arguments += ["--seeds", str(len(plan.seeds)), "--output", str(output), *_changes(plan)]
    write_outputs(output, results, f"cwrgp-analyze {shlex.join(arguments)}")
    return results


def _limit(count: int) -> str:
    return f"at most {count:,}" if count else "all"


def _batch_sizes(plan: Plan) -> set[int]:
    return {arm_config(plan.base, arm, 0, "").SOLVER.BATCH_SIZE for arm, _ in plan.runs}


def _with_fast_views(cfg: CfgNode) -> CfgNode:
    """Views in batches, unless the user says otherwise: the images are small and of one size."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.AUGMENT.DEVICE == "auto":
        cfg.AUGMENT.DEVICE = "training"
    return cfg


def _packaged() -> CfgNode:
    cfg = get_cfg()
    merge_file(cfg, find_config(CONFIG))
    return cfg


def _as_packaged(cfg: CfgNode, keys: set[str]) -> CfgNode:
    """A config without a file's values of keys that every run sets: they have no effect."""
    packaged = _packaged()
    merge_values(cfg, {key: value_of(packaged, key) for key in keys})
    return cfg


def _changes(plan: Plan) -> list[str]:
    """KEY VALUE of what is not as in the packaged config, and not set by the experiment."""
    default, cfg = _with_fast_views(_packaged()), CfgNode.load_cfg(plan.config)
    changed = [
        (key, value_of(cfg, key))
        for key in flatten(cfg)
        if key not in set_keys(plan.experiment) and value_of(cfg, key) != value_of(default, key)
    ]
    return [word for key, value in changed for word in (key, str(value))]


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


def read_plan(output: Path) -> Plan | None:
    """The plan of a folder; None if it has none.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    path = output / PLAN
    if not path.is_file():
        return None
    if not _is_of_experiment(path):
        raise ValueError(f"{path} is damaged, or not of an experiment; choose another folder")
    try:
        content = json.loads(path.read_text())
        if content.pop("version") != _VERSION:
            raise ValueError
        for key in ("seeds", "number_format"):
            content[key] = tuple(content[key])
        return Plan(**content)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is of another version; give --restart to start anew, or choose another folder"
        ) from None


def _is_of_experiment(path: Path) -> bool:
    """Whether a file is the plan of an experiment, of any version. Trials have a plan, too."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("experiment") in [*EXPERIMENTS]


def _make_plan(name: str, cfg: CfgNode, output: Path, *, seeds: int, restart: bool) -> Plan:
    """Writes the plan, which must be that of the folder if it has one."""
    if restart and _is_of_experiment(output / PLAN):  # nothing is removed from any other folder
        for part in ("runs", "logs", "figures"):
            shutil.rmtree(output / part, ignore_errors=True)
        for file in (PLAN, RESULTS, "report.html"):
            (output / file).unlink(missing_ok=True)
    old = read_plan(output)
    config = cfg.dump()
    if old is not None and (old.experiment, old.config) != (name, config):
        what = repr(old.experiment) + (" with another config" if old.experiment == name else "")
        raise ValueError(
            f"{output} holds the experiment {what}; give --restart to start anew, or choose another"
            " folder"
        )
    count = max(seeds, len(old.seeds) if old else 0)
    plan = Plan(
        experiment=name,
        config=config,
        number_format=old.number_format if old else _number_format(cfg),
        seeds=tuple(range(count)),
    )
    write_text(output / PLAN, json.dumps({"version": _VERSION, **asdict(plan)}, indent=1))
    return plan


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


def _number_format(cfg: CfgNode) -> tuple[str, str]:
    """What ``auto`` becomes, once for all runs: they shall not differ in it."""
    found = cfg.clone()
    found.defrost()
    device = local_device()
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        resolve_number_format(found, None, device)
    finally:
        torch.set_num_threads(threads)
    return found.SOLVER.AMP.DTYPE, found.SOLVER.AMP.MEMORY_FORMAT


def _folder(output: Path, run: str) -> Path:
    return output / "runs" / run
