"""Preemption: on a signal a run finishes its step, saves, and exits with a code to requeue on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# EX_TEMPFAIL of sysexits.h: "try again later".
EXIT_CODE = 75


class Preempted(Exception):
    """A signal stopped the run, which has saved what it trained; a command ends in `EXIT_CODE`."""


class StopRequest:
    """Whether a signal has asked some process of the run to stop."""

    def __init__(self) -> None:
        self.received = False
        self._group: Any = None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.received = True

    def agreed(self) -> bool:
        """The same answer on every process: they must leave after the same step."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return self.received
        if self._group is None:
            # On the CPU, so that asking at every step does not wait for the GPU.
            self._group = dist.new_group(backend="gloo")
        flag = torch.tensor(float(self.received))
        dist.all_reduce(flag, group=self._group)
        return bool(flag > 0)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catches the signals inside the block; only a main thread may."""
    request = StopRequest()
    with _handled(request.handle):
        yield request


@contextmanager
def forwarded_to(pids: Sequence[int]) -> Iterator[None]:
    """Hands the signals on to other processes inside the block."""

    def forward(signum: int, frame: FrameType | None) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    with _handled(forward):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
