"""Jobs that each have a folder: who works on one, its state, and several at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOCK = "lock.json"
_PATIENCE = 2.0  # seconds: a process that looks at the lock holds it for a moment


def usable_cores() -> int:
    """Cores that this process may use: those that a scheduler gave it, where it can be known."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a job's folder, which is made if needed.

    The operating system releases it when the process ends, in whatever way. On a network drive it
    holds between machines as well, if the drive supports POSIX locks.

    Raises:
        ValueError: another process works on the job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    deadline = time.monotonic() + _PATIENCE
    with path.open("a+") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise ValueError(f"{folder} is worked on by {_who(file.read())}") from None
                time.sleep(0.05)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        yield


def holder(folder: Path) -> str | None:
    """Who works on a job, "process 71 on node3"; None: nobody.

    Not for the process that holds the lock: looking would release it.
    """
    try:
        with (folder / _LOCK).open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return _who(file.read())
    except FileNotFoundError:
        pass
    return None


def _who(content: str) -> str:
    try:
        found = json.loads(content)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError):  # it is just being written
        return "another process"


@dataclass(frozen=True)
class Job:
    """A command that ends its job, or goes on with it.

    Attributes:
        name: for messages.
        command: program and arguments.
        log: what it prints is appended here.
    """

    name: str
    command: Sequence[str]
    log: Path


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    gpus: Sequence[str] = (),
    gpus_each: int = 0,
    env: Mapping[str, str] | None = None,
    ended: Callable[[Job, int, float], None] = lambda job, code, seconds: None,
) -> dict[str, int]:
    """Runs commands, several at once, each with its own GPUs.

    SIGTERM, SIGUSR1 and Ctrl-C are handed on to those that run, and no other is started.

    Args:
        jobs: in the order in which they start.
        at_once: how many run at the same time.
        gpus: names of this machine's GPUs, as in CUDA_VISIBLE_DEVICES.
        gpus_each: of each job; 0: a job sees what this process sees.
        env: for all jobs; None: this process's.
        ended: called with each job, its exit code and its seconds.

    Returns:
        The exit codes by name; a job that was not started is missing.

    Raises:
        ValueError: fewer GPUs than the jobs need at once.
    """
    if gpus_each * at_once > len(gpus) and gpus_each:
        raise ValueError(
            f"{at_once} jobs at once with {gpus_each} GPUs each need {at_once * gpus_each} GPUs;"
            f" this machine shows {len(gpus)}"
        )
    free = [
        ",".join(gpus[n * gpus_each : (n + 1) * gpus_each]) if gpus_each else ""
        for n in range(at_once)
    ]
    waiting, codes = list(jobs), dict[str, int]()
    running: dict[int, tuple[subprocess.Popen[bytes], Job, str, float]] = {}
    with _handing_on(running) as stopped:
        while running or (waiting and not stopped):
            while waiting and free and not stopped:
                job, place = waiting.pop(0), free.pop(0)
                process = _start(job, place if gpus_each else None, env)
                running[process.pid] = process, job, place, time.monotonic()
            for pid, (process, job, place, since) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[pid]
                    free.append(place)
                    codes[job.name] = code
                    ended(job, code, time.monotonic() - since)
            time.sleep(0.1)
    return codes


def _start(job: Job, gpus: str | None, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ if env is None else env)
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    with job.log.open("ab") as log:
        # Its own group, so that Ctrl-C reaches it through this process alone.
        return subprocess.Popen(
            job.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


@contextmanager
def _handing_on(running: Mapping[int, object]) -> Iterator[list[int]]:
    """Hands signals on to the running processes; yields the list of those that came."""
    came: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        came.append(number)
        for pid in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield came
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
