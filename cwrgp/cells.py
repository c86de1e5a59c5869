"""Cells: pieces of work with a folder each, done once their result is there."""

from __future__ import annotations

import enum
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwrgp.errors import USER_ERRORS
from cwrgp.file_io.atomic import write_text
from cwrgp.jobs import Job, holder, locked, run_jobs, usable_cores
from cwrgp.preemption import EXIT_CODE, Preempted

RESULT, ERROR, RUN = "result.json", "error.txt", "run"


class State(str, enum.Enum):
    """What has become of a cell."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    STARTED = "started"  # and stopped before its end
    WAITING = "waiting"


@dataclass(frozen=True)
class Cell:
    """A piece of work.

    Attributes:
        name: for messages.
        folder: of its result; what it works in is ``folder/run``.
        command: that does the work, by calling :func:`run_once`, or goes on with it.
        log: what the command prints.
    """

    name: str
    folder: Path
    command: Sequence[str]
    log: Path


def folder_state(folder: Path) -> tuple[State, str]:
    """The state of a cell, and who works on it or why it failed."""
    if (folder / RESULT).is_file():
        return State.DONE, ""
    if who := holder(folder):
        return State.RUNNING, who
    if (folder / ERROR).is_file():
        return State.FAILED, (folder / ERROR).read_text()
    return (State.STARTED if (folder / RUN).is_dir() else State.WAITING), ""


def check_idle(folders: Iterable[Path]) -> None:
    """Refuses cells that are at work: they would be done twice, or go on in a removed folder.

    Args:
        folders: of cells, there or not.

    Raises:
        ValueError: names the first such folder and who works on it.
    """
    for folder in folders:
        if who := holder(folder):
            raise ValueError(f"{folder} is worked on by {who}: wait until it is done, or stop it")


def run_once(folder: Path, work: Callable[[], Mapping[str, Any]]) -> None:
    """Does the work of a cell and writes its result; does nothing if that is there.

    Args:
        folder: of the cell; made if needed.
        work: goes on where it was stopped; returns the result, of plain values.

    Raises:
        ValueError: another process works on it, or as ``work``, like every other error.
    """
    with locked(folder):
        if (folder / RESULT).is_file():
            return
        (folder / ERROR).unlink(missing_ok=True)
        start = time.monotonic()
        try:
            result = work()
        except USER_ERRORS as error:
            (folder / ERROR).write_text(" ".join(str(error).split()))
            raise
        # The seconds are of the last start; an interrupted cell took longer.
        seconds = round(time.monotonic() - start, 1)
        write_text(folder / RESULT, json.dumps({**result, "seconds": seconds}))


def folder_result(folder: Path) -> dict[str, Any] | None:
    """What :func:`run_once` wrote; None if the cell is not done."""
    path = folder / RESULT
    return json.loads(path.read_text()) if path.is_file() else None


def run_cells(
    cells: Sequence[Cell],
    *,
    at_once: int,
    gpus: Sequence[str] = (),
    gpus_each: int = 0,
    noun: str = "cells",
) -> None:
    """Runs the cells that are not done on this machine, and prints how far they are.

    Without GPUs, the cores are divided among those that run, unless OMP_NUM_THREADS is set.

    Args:
        cells: in the order in which they start.
        at_once: how many run at the same time.
        gpus: as for `run_jobs`.
        gpus_each: likewise.
        noun: what the cells are, for messages.

    Raises:
        ValueError: too few GPUs, or a cell failed.
        Preempted: a signal stopped the cells.
    """
    codes = {cell.name: 0 for cell in cells if (cell.folder / RESULT).is_file()}
    waiting = [cell for cell in cells if cell.name not in codes]
    if codes:
        print(f"{len(codes)} of {len(cells)} {noun} are done already", flush=True)
    start, ended_jobs = time.monotonic(), 0

    def ended(job: Job, code: int, took: float) -> None:
        nonlocal ended_jobs
        if code == EXIT_CODE:
            print(f"{job.name}: stopped after {took:.0f} s", flush=True)
            return
        ended_jobs += 1
        left = len(waiting) - ended_jobs
        eta = (time.monotonic() - start) / ended_jobs * left
        rest = f"; {left} left, about {eta / 60:.0f} min" if left else ""
        print(f"{job.name}: {'failed' if code else 'done'} in {took:.0f} s{rest}", flush=True)

    env = dict(os.environ)
    if not gpus:
        env.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // at_once)))
    codes |= run_jobs(
        [Job(cell.name, cell.command, cell.log) for cell in waiting],
        at_once=at_once,
        gpus=gpus,
        gpus_each=gpus_each,
        env=env,
        ended=ended,
    )
    if EXIT_CODE in codes.values() or len(codes) < len(cells):
        raise Preempted("stop requested: what was finished is kept")
    if failed := [cell for cell in cells if codes[cell.name]]:
        error = failed[0].folder / ERROR
        why = error.read_text() if error.exists() else "see its log"
        raise ValueError(
            f"{len(failed)} of {len(cells)} {noun} failed, the first {failed[0].name}: {why}"
            f" (the whole log is {failed[0].log})"
        )
