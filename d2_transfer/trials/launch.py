"""Runs the cells of a plan: on this machine, or as an array of Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from cwrgp.cells import Cell, State, run_cells
from cwrgp.preemption import EXIT_CODE
from d2_transfer.trials.cell import cell_folder, state_of
from d2_transfer.trials.plan import Plan
from d2_transfer.trials.slurm import array_script, submit


def run_here(output: Path, plan: Plan, *, num_gpus: int, jobs: int) -> None:
    """Runs the cells that are not done.

    Args:
        output: folder of the trials.
        plan: theirs.
        num_gpus: of each cell.
        jobs: cells at once.

    Raises:
        ValueError: too few GPUs, or a cell failed.
        Preempted: a signal stopped the cells.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    gpus = names if len(names) == count else [str(n) for n in range(count)]
    command = _command(output, num_gpus)
    run_cells(
        [
            Cell(
                cell.name,
                cell_folder(output, cell),
                [*command, "--cell", str(cell.number)],
                output / "logs" / f"{cell.name}.txt",
            )
            for cell in plan.cells
        ],
        at_once=jobs,
        gpus=gpus,
        gpus_each=max(num_gpus, 1) if gpus and num_gpus else 0,
    )


def run_on_slurm(output: Path, plan: Plan, *, num_gpus: int, jobs: int | None, sbatch: str) -> None:
    """Submits the cells that are neither done nor running.

    Args:
        output: folder of the trials.
        plan: theirs.
        num_gpus: of each cell.
        jobs: most cells at once; None: as Slurm likes.
        sbatch: more options of sbatch.

    Raises:
        FileNotFoundError, ValueError: as `submit`.
    """
    open_states = {State.WAITING, State.STARTED, State.FAILED}
    numbers = [cell.number for cell in plan.cells if state_of(output, cell)[0] in open_states]
    if not numbers:
        print("no cell is left to run: --summarize shows the results")
        return
    command = _command(output, num_gpus)
    script = array_script(output, command, numbers, at_once=jobs, exit_code=EXIT_CODE)
    print(submit(output, script, sbatch))
    print(f"{len(numbers)} cells; --list shows their states, --summarize the results")


def _command(output: Path, num_gpus: int) -> list[str]:
    """Runs a cell, with its number after ``--cell``."""
    module = ["-m", "d2_transfer.commands.trials"]
    return [sys.executable, *module, "--output", str(output), "--num-gpus", str(num_gpus)]
