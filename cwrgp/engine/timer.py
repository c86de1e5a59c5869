"""How long steps take, and how much of that time is spent waiting for images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class StepTimer:
    """Mean durations of the steps since `reset`, without evaluations and checkpoints.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Starts a new interval."""
        self._begin = self._clock()
        self._waited = self._paused = 0.0
        self._steps = 0

    def count(self) -> None:
        """Notes the end of a step."""
        self._steps += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the part of a step that waits for images."""
        start = self._clock()
        yield
        self._waited += self._clock() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what does not belong to a step: an evaluation, a checkpoint."""
        start = self._clock()
        yield
        self._paused += self._clock() - start

    def means(self) -> tuple[float, float]:
        """Seconds of a step, and seconds of it spent waiting for images; after one step or more."""
        elapsed = self._clock() - self._begin - self._paused
        return elapsed / self._steps, self._waited / self._steps
