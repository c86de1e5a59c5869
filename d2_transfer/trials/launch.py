"""Runs the cells of a plan: on this machine, or as an array of Slurm."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cwrgp.cells import Cell as Work
from cwrgp.cells import State, check_idle, run_cells
from cwrgp.jobs import locked
from cwrgp.preemption import EXIT_CODE
from d2_transfer.trials.cell import base_config, state_of
from d2_transfer.trials.plan import Cell, Plan
from d2_transfer.trials.result_files import cell_folder
from d2_transfer.trials.slurm import array_script, submit
from d2_transfer.trials.sweep import rate_of


def run_here(output: Path, plan: Plan, *, num_gpus: int, jobs: int) -> None:
    """Runs the cells that are not done, first those of a sweep, which the others need.

    Args:
        output: folder of the trials.
        plan: theirs.
        num_gpus: of each cell.
        jobs: cells at once.

    Raises:
        ValueError: too few GPUs, another process runs the cells, a cell failed, or all trainings of
            an arm's sweep diverged.
        Preempted: a signal stopped the cells.
    """
    with locked(output):
        _run_phases(output, plan, num_gpus=num_gpus, jobs=jobs)


def _run_phases(output: Path, plan: Plan, *, num_gpus: int, jobs: int) -> None:
    check_idle(cell_folder(output, cell) for cell in plan.cells)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    gpus = names if len(names) == count else [str(n) for n in range(count)]
    command = _command(output, num_gpus)
    for phase in _phases(plan.cells):
        if plan.rates and phase[0].rate is None:
            for arm in plan.arms:  # before an hour is spent on the others
                rate_of(output, plan, arm.name, base_config(plan).SOLVER.BASE_LR)
        run_cells(
            [
                Work(
                    cell.name,
                    cell_folder(output, cell),
                    [*command, "--cell", str(cell.number)],
                    output / "logs" / f"{cell.name}.txt",
                )
                for cell in phase
            ],
            at_once=jobs,
            gpus=gpus,
            gpus_each=max(num_gpus, 1) if gpus and num_gpus else 0,
            noun="cells" if phase[0].rate is None else "cells of the sweep",
        )


def _phases(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of a sweep and the others; none is empty."""
    parts = [c for c in cells if c.rate is not None], [c for c in cells if c.rate is None]
    return [part for part in parts if part]


def run_on_slurm(output: Path, plan: Plan, *, num_gpus: int, jobs: int | None, sbatch: str) -> None:
    """Submits the cells that are neither done nor running; those of a sweep come first.

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
    waiting = [cell for cell in plan.cells if state_of(output, cell)[0] in open_states]
    if not waiting:
        print("no cell is left to run: --summarize shows the results")
        return
    command, after = _command(output, num_gpus), ""
    for phase in _phases(waiting):
        numbers = [cell.number for cell in phase]
        script = array_script(output, command, numbers, at_once=jobs, exit_code=EXIT_CODE)
        name = "array.sh" if phase[0].rate is None else "sweep.sh"
        after = submit(output / name, script, sbatch, after=after)
        print(f"submitted: job {after}, {len(numbers)} cells")
    print("--list shows their states, --summarize the results")


def _command(output: Path, num_gpus: int) -> list[str]:
    """Runs a cell, with its number after ``--cell``."""
    module = ["-m", "d2_transfer.commands.trials"]
    return [sys.executable, *module, "--output", str(output), "--num-gpus", str(num_gpus)]
