"""Where a fine-tuning's numbers go: Detectron2's writers, and the trackers of LOGGERS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.events import EventWriter, get_event_storage

from cwrgp.trackers.base import Tracker
from cwrgp.trackers.build import open_trackers


class TrackerWriter(EventWriter):
    """Hands Detectron2's scalars to a tracker, and pictures where it has ``log_images``.

    Args:
        name: of the tracker.
        folder: OUTPUT_DIR.
        config: as nested dictionaries of plain values.
        window_size: of the median of those scalars that Detectron2 smooths.
    """

    def __init__(
        self, name: str, folder: Path, config: Mapping[str, Any], window_size: int = 20
    ) -> None:
        self._name, self._folder, self._config = name, folder, config
        self._window_size = window_size
        self._last_write = self._last_images = -1
        self._tracker: Tracker | None = None

    def open(self, start_step: int) -> None:
        """Opens the tracker, once it is known where the run starts."""
        (self._tracker,) = open_trackers(
            [self._name], self._folder, start_step=start_step, config=self._config
        )

    def write(self) -> None:
        """Logs the scalars that are new since the last call."""
        assert self._tracker is not None
        records: dict[int, dict[str, float]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, step) in latest.items():
            if step > self._last_write:
                records.setdefault(step, {})[name] = value
        for step, values in sorted(records.items()):
            self._tracker.log(values, step)
            self._last_write = step
        self._write_images()

    def _write_images(self) -> None:
        log_images = getattr(self._tracker, "log_images", None)
        if log_images is None:
            return
        records: dict[int, dict[str, np.ndarray]] = {}
        # Detectron2 has no other way to them.
        for name, image, step in get_event_storage()._vis_data:
            if step > self._last_images:
                records.setdefault(step, {})[name] = np.asarray(image).transpose(1, 2, 0)
        for step, images in sorted(records.items()):
            log_images(images, step)
            self._last_images = step

    def close(self) -> None:
        """Closes the tracker."""
        if self._tracker is not None:
            self._tracker.close()
