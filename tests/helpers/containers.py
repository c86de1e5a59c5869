"""Commands in a container whose shared memory is small, and of which nothing may be left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from repository import REPOSITORY


def in_small_container(*command: object) -> subprocess.CompletedProcess[str]:
    """Runs Python where /dev/shm has 1 MiB, and sees that no process of it is left."""
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "bash", "-c", mount, "-", sys.executable, *map(str, command)]
    process = subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return finished(process, words)


def finished(process: subprocess.Popen[str], words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    with pytest.raises(ProcessLookupError):  # the group is empty
        os.killpg(process.pid, 0)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)
