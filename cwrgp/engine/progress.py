"""What a run shows of its progress: log lines, a progress bar, records for the trackers."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cwrgp.trackers.base import Tracker

logger = logging.getLogger("cwrgp")


def setup_logging(folder: Path | None) -> None:
    """Sends the log to stdout and to ``folder/log.txt``; None (other ranks): warnings only."""
    _close_handlers()
    logger.propagate = False
    logger.setLevel(logging.WARNING if folder is None else logging.INFO)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "log.txt"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m/%d %H:%M:%S"))
        logger.addHandler(handler)


@contextlib.contextmanager
def log_of_a_run() -> Iterator[None]:
    """Ends at its end what :func:`setup_logging` began: a later run has a log of its own."""
    try:
        yield
    finally:
        _close_handlers()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _close_handlers() -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class MetricWriter:
    """Hands records to the trackers and shows progress, on the main process only.

    Args:
        trackers: open; closed at the end of `shown`.
        start_step: the first step of this start.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        *,
        start_step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> None:
        self.trackers = trackers
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self._start = start_step
        self._begun = time.perf_counter()
        # A bar on a terminal, lines in a file.
        self._bar = tqdm(
            total=total_steps, initial=start_step, disable=None, unit="it", dynamic_ncols=True
        )

    def step(self) -> None:
        """One step is done."""
        self._bar.update()

    def write(
        self, iteration: int, values: Mapping[str, float], *, line: str | None = None
    ) -> None:
        """Writes one record.

        Args:
            iteration: the step, from 0.
            values: by name.
            line: the start of a line for the log; the values follow it. None: no line.
        """
        for tracker in self.trackers:
            tracker.log(values, iteration)
        if line is not None:
            shown = (f"{k}: {v:.4g}" for k, v in values.items() if k != "eta_seconds")
            logger.info("%s  %s", line, "  ".join(shown))

    def progress(self, iteration: int) -> tuple[str, float]:
        """The start of a progress line, and the estimated seconds until the end of the run."""
        done = iteration + 1 - self._start
        eta = (time.perf_counter() - self._begun) / done * (self.total_steps - iteration - 1)
        epoch = iteration // self.steps_per_epoch
        text = (
            f"eta: {timedelta(seconds=round(eta))}  "
            f"epoch: {epoch + 1}/{self.total_steps // self.steps_per_epoch}  "
            f"iter: {iteration + 1}/{self.total_steps}"
        )
        return text, eta

    @contextlib.contextmanager
    def shown(self) -> Iterator[MetricWriter]:
        """Keeps the bar below the log lines, and closes bar and trackers at the end."""
        with contextlib.ExitStack() as stack:
            for tracker in self.trackers:
                stack.callback(tracker.close)
            stack.callback(self._bar.close)
            if not self._bar.disable:
                stack.enter_context(logging_redirect_tqdm([logger]))
            yield self
