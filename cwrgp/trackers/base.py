"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Keeps the numbers of a run: a file, a server.

    A tracker that takes pictures has a further method, ``log_images(images, step)``, with images by
    name, (H, W, 3) uint8 each.
    """

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Keeps one record.

        Args:
            values: by name.
            step: the iteration they belong to, from 0.
        """

    def close(self) -> None:
        """Called once, at the end of the run, also when it fails."""


class OpenTracker(Protocol):
    """How a tracker is opened, on the main process only."""

    def __call__(self, folder: Path, *, start_step: int, config: Mapping[str, Any]) -> Tracker:
        """Opens it.

        Args:
            folder: of the run; exists.
            start_step: the first step of this start. A run that was killed has logged steps from
                there on; they are about to be repeated.
            config: the run's configuration as nested dictionaries of plain values.
        """
