"""What a run reports: metrics.json, TensorBoard, a progress line, a progress bar."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cwrgp.file_io.atomic import write_text
from cwrgp.trackers.jsonl import read_metrics

logger = logging.getLogger("cwrgp")


def setup_logging(folder: Path | None) -> None:
    """Sends the log to stdout and to ``folder/log.txt``; None (other ranks): warnings only."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.WARNING if folder is None else logging.INFO)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "log.txt"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m/%d %H:%M:%S"))
        logger.addHandler(handler)


class MetricWriter:
    """Writes records and shows progress, on the main process only.

    Args:
        folder: OUTPUT_DIR; gets ``metrics.json`` (a JSON object a line) and TensorBoard events.
        start_step: the first step of this start; records from it on, left by a run that was killed
            after its last checkpoint, are dropped.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
    """

    def __init__(
        self, folder: Path, *, start_step: int, total_steps: int, steps_per_epoch: int
    ) -> None:
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        path = folder / "metrics.json"
        kept = "".join(
            f"{json.dumps(r)}\n" for r in read_metrics(path) if r["iteration"] < start_step
        )
        write_text(path, kept)
        self._json = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close)
        self._events = SummaryWriter(str(folder), purge_step=start_step or None)
        self._start = start_step
        self._begun = time.perf_counter()
        # A bar where somebody looks at it, lines where a file does.
        self._bar = tqdm(
            total=total_steps, initial=start_step, disable=None, unit="it", dynamic_ncols=True
        )

    def step(self) -> None:
        """One step is done."""
        self._bar.update()

    def write(self, iteration: int, values: dict[str, float], *, line: str | None = None) -> None:
        """Writes one record.

        Args:
            iteration: the step, from 0.
            values: by name.
            line: the start of a line for the log; the values follow it. None: no line.
        """
        self._json.write(json.dumps({"iteration": iteration, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, iteration)
        if line is not None:
            shown = (f"{k}: {v:.4g}" for k, v in values.items() if k != "eta_seconds")
            logger.info("%s  %s", line, "  ".join(shown))

    def progress(self, iteration: int) -> tuple[str, float]:
        """The start of a progress line, and the seconds that the rest of the run will take."""
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
        """Keeps the bar below the log's lines, and closes everything in the end."""
        with logging_redirect_tqdm([logger]) if not self._bar.disable else contextlib.nullcontext():
            try:
                yield self
            finally:
                self._bar.close()
                self._events.close()
                self._json.close()
