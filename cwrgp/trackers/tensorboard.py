"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class TensorBoardTracker:
    """Writes TensorBoard events; those from ``start_step`` on are hidden when a run resumes.

    Args:
        folder: gets the event files.
        start_step: the first step of this start.
        config: not used.
    """

    def __init__(self, folder: Path, *, start_step: int, config: Mapping[str, Any]) -> None:
        self._events = SummaryWriter(str(folder), purge_step=start_step or None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds a scalar for each value."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()
