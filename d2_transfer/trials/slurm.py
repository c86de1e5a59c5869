"""Submits cells to Slurm, as one array."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cwrgp.file_io.atomic import write_text

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array={array}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
# A cell that is told to stop saves and exits with {code}; it goes on where it was stopped. It is
# named by its place: the last one has the number of the whole array as its own.
code=0
srun --ntasks=1 {command} --cell "$SLURM_ARRAY_TASK_ID" || code=$?
[ $code -ne {code} ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
exit $code
"""


def array_script(
    folder: Path,
    command: Sequence[str],
    numbers: Sequence[int],
    *,
    at_once: int | None,
    exit_code: int,
) -> str:
    """The batch script of an array of cells.

    Args:
        folder: of the trials; the logs are in it.
        command: runs a cell, without its number.
        numbers: of the cells, one or more.
        at_once: most cells at the same time; None: as Slurm likes.
        exit_code: of a cell that is to be queued again.
    """
    array = ",".join(map(str, numbers)) + ("" if at_once is None else f"%{at_once}")
    return _SCRIPT.format(
        name=shlex.quote(folder.name),
        array=array,
        log=folder / "logs" / "cell-%a.txt",
        command=shlex.join(command),
        code=exit_code,
    )


def submit(path: Path, script: str, options: str, *, after: str = "") -> str:
    """Writes the script, submits it, and returns the number of the job.

    Args:
        path: of the script, in the folder of the trials.
        script: what `array_script` gives.
        options: more options of sbatch, such as "--partition=gpu --gres=gpu:8".
        after: number of a job that must have ended well before; "": none.

    Raises:
        FileNotFoundError: there is no sbatch on this machine.
        ValueError: sbatch refuses the job.
    """
    (path.parent / "logs").mkdir(parents=True, exist_ok=True)
    write_text(path, script)
    order = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
    command = ["sbatch", "--parsable", *order, *shlex.split(options), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            "launcher slurm: this machine has no sbatch; submit from one that has, or use --cell K"
            " with your scheduler"
        ) from None
    if done.returncode:
        raise ValueError(f"sbatch refuses {path}: {' '.join(done.stderr.split())}")
    return done.stdout.strip().split(";")[0]  # the name of a cluster may follow
