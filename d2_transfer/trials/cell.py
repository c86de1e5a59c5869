"""One cell of the trials: a fine-tuning in its folder, which goes on after any interruption."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

from cwrgp.cells import RUN, State, folder_state, run_once
from cwrgp.file_io.atomic import write_text
from cwrgp.file_io.digest import file_digest
from cwrgp.provenance import source_commit
from cwrgp.version import __version__
from d2_transfer.config import get_cfg
from d2_transfer.evaluators import DETECTIONS, SCORES, inference_folder
from d2_transfer.fine_tuning import RunOptions, fine_tune
from d2_transfer.trials.plan import Cell, Plan
from d2_transfer.trials.result_files import cell_folder
from d2_transfer.trials.scaling import use_fraction
from d2_transfer.trials.sweep import rate_of, use_sweep

INPUTS = "inputs.json"


def state_of(output: Path, cell: Cell) -> tuple[State, str]:
    """The state of a cell, and who works on it or why it failed."""
    return folder_state(cell_folder(output, cell))


def base_config(plan: Plan) -> CfgNode:
    """The config of the trials, without what is each cell's own."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(plan.config))
    cfg.DATASETS.CLASSES = cfg.DATASETS.CLASSES or list(plan.classes)
    return cfg


def cell_config(plan: Plan, cell: Cell, output: Path) -> CfgNode:
    """The config of a cell's fine-tuning.

    Raises:
        ValueError: the sweep that decides its learning rate is not done.
    """
    cfg = base_config(plan)
    cfg.MODEL.WEIGHTS, cfg.SEED = cell.weights, cell.seed
    cfg.OUTPUT_DIR = str(cell_folder(output, cell) / RUN)
    if cell.rate is not None:
        use_sweep(cfg, cell.rate, cell.seed)
        return cfg
    if plan.rates:
        cfg.SOLVER.BASE_LR = rate_of(output, plan, cell.arm, cfg.SOLVER.BASE_LR)
    use_fraction(cfg, cell.percent, cell.seed)
    return cfg


def check_inputs(output: Path, plan: Plan, cell: Cell) -> None:
    """Checks that what a cell has done so far, if anything, was with the plan's weights and config.

    A plan may have lost an arm and got another one of that name.

    Raises:
        ValueError: it was with others.
    """
    path = cell_folder(output, cell) / INPUTS
    if path.is_file() and json.loads(path.read_text()) != inputs_of(plan, cell):
        raise ValueError(
            f"{path.parent} was trained from other weights or with another config; remove this"
            " folder, give the arm another name, or give --restart to start all anew"
        )


def inputs_of(plan: Plan, cell: Cell) -> dict[str, str]:
    """SHA-256 of what a cell starts from: its weights ("": random ones) and the config."""
    return {
        "weights": dict(plan.files.values())[cell.weights],
        "config": hashlib.sha256(plan.config.encode()).hexdigest(),
    }


def _check_weights(plan: Plan, cell: Cell) -> None:
    """Raises ValueError if the file of weights is no longer that of the plan."""
    if cell.weights and file_digest(Path(cell.weights)) != inputs_of(plan, cell)["weights"]:
        raise ValueError(
            f"{cell.weights} has changed since the trials were started: restore it, or give"
            " --restart to start anew"
        )


def run_cell(output: Path, plan: Plan, cell: Cell, *, num_gpus: int) -> None:
    """Trains and evaluates a cell, or goes on with it; does nothing if it is done.

    Raises:
        ValueError, OSError, FloatingPointError: as `fine_tune`; another process works on it, or
            its weights or config are no longer those that it was started with.
        Preempted: a signal stopped it; the next call goes on.
    """
    folder = cell_folder(output, cell)
    check_inputs(output, plan, cell)

    def work() -> dict[str, Any]:
        cfg = cell_config(plan, cell, output)
        _check_weights(plan, cell)
        write_text(folder / INPUTS, json.dumps(inputs_of(plan, cell)))
        options = RunOptions(resume=True, or_start=True, stoppable=True, num_gpus=num_gpus)
        try:
            fine_tune(cfg, options)
        except FloatingPointError as error:
            if cell.rate is None:
                raise
            # The rate is too high, which is what the sweep is there to find out.
            return {"scores": None, "diverged": str(error)}
        found = inference_folder(Path(cfg.OUTPUT_DIR), cfg.DATASETS.TEST[0])
        return {
            "arm": cell.arm,
            "seed": cell.seed,
            "rate": cfg.SOLVER.BASE_LR,
            "percent": cell.percent,
            "scores": json.loads((found / SCORES).read_text()),
            "detections": str((found / DETECTIONS).relative_to(folder)),
            "environment": environment(cfg),
        }

    run_once(folder, work)


def environment(cfg: CfgNode) -> dict[str, str]:
    """Versions, hardware, and the commit where the code comes from a checkout."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else torch.cpu.get_capabilities()["cpu_name"]
    commit = source_commit()
    return {
        "cwrgp": __version__,
        **({"commit": commit} if commit else {}),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "number format": f"{cfg.SOLVER.AMP.DTYPE}, {cfg.SOLVER.AMP.MEMORY_FORMAT}",
    }
