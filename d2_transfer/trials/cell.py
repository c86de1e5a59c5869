"""One cell of the trials: a fine-tuning in its folder, which goes on after any interruption."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

from cwrgp.cells import RUN, State, folder_state, run_once
from cwrgp.provenance import source_commit
from cwrgp.version import __version__
from d2_transfer.config import get_cfg
from d2_transfer.evaluators import DETECTIONS, SCORES, inference_folder
from d2_transfer.fine_tuning import RunOptions, fine_tune
from d2_transfer.trials.plan import Cell, Plan
from d2_transfer.trials.result_files import cell_folder
from d2_transfer.trials.scaling import use_fraction
from d2_transfer.trials.sweep import rate_of, use_sweep


def state_of(output: Path, cell: Cell) -> tuple[State, str]:
    """The state of a cell, and who works on it or why it failed."""
    return folder_state(cell_folder(output, cell))


def base_config(plan: Plan) -> CfgNode:
    """The config of the trials, without what is each cell's own."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(plan.config))
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


def run_cell(output: Path, plan: Plan, cell: Cell, *, num_gpus: int) -> None:
    """Trains and evaluates a cell, or goes on with it; does nothing if it is done.

    Raises:
        ValueError, OSError, FloatingPointError: as `fine_tune`, or another process works on it.
        Preempted: a signal stopped it; the next call goes on.
    """
    folder = cell_folder(output, cell)
    cfg = cell_config(plan, cell, output)

    def work() -> dict[str, Any]:
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
