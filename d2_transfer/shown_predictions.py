"""Predictions on a few fixed images, for trackers that take pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage

from cwrgp.errors import MissingPackage
from d2_transfer.data.mapper import UNREADABLE, TransferMapper
from d2_transfer.data.read_image import read_image
from d2_transfer.data.records import TURNED
from d2_transfer.visualize import draw_detections

logger = logging.getLogger(__name__)

_SCORE = 0.5
_LONG_SIDE = 640  # px


def spread(records: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the records at most, evenly spread from the first to the last."""
    places = np.linspace(0, len(records) - 1, min(count, len(records)))
    return [records[int(place)] for place in places.round()]


class ShowPredictions(HookBase):
    """Hands pictures of detections with a score of 0.5 or more to the trackers.

    They are made after each evaluation, on the main process, as "predictions/FILE", of images of
    the validation set, so that nobody chooses by the test set; without one, of the first test set.

    Args:
        cfg: of the run.
        period: iterations between evaluations; 0: after the last one only.
    """

    def __init__(self, cfg: CfgNode, period: int) -> None:
        self._cfg, self._period = cfg, period
        self._mapper = TransferMapper(cfg, False)
        self._records: list[dict[str, Any]] | None = None

    def after_step(self) -> None:
        """Draws if it is time."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self._show()

    def _show(self) -> None:
        datasets = self._cfg.DATASETS
        name = (*datasets.VAL, *datasets.TEST)[0]
        if self._records is None:
            self._records = spread(DatasetCatalog.get(name), self._cfg.TEST.SHOWN_IMAGES)
        storage = get_event_storage()
        storage.clear_images()  # a tracker may have left them
        for record in self._records:
            try:
                picture = self._draw(record, datasets.CLASSES)
            except MissingPackage as error:
                logger.warning(f"TEST.SHOWN_IMAGES: no predictions are drawn: {error}")
                self._records = []
                return
            if picture is not None:
                file = record["file_name"].rsplit("/", 1)[-1]
                storage.put_image(f"predictions/{file}", picture.transpose(2, 0, 1))

    @torch.no_grad()
    def _draw(self, record: dict[str, Any], names: Sequence[str]) -> np.ndarray | None:
        """(H, W, 3) uint8; None for an image that cannot be read."""
        mapped = self._mapper(record)
        if UNREADABLE in mapped:
            return None
        model = self.trainer.checkpointer.model
        training = model.training
        model.eval()
        try:
            found = model([mapped])[0]["instances"].to("cpu")
        finally:
            model.train(training)
        found = found[found.scores >= _SCORE]
        pixels = read_image(
            record["file_name"],
            "RGB",
            turned=record.get(TURNED, True),
            pixel_range=list(self._cfg.INPUT.PIXEL_RANGE),
        )
        return draw_detections(
            pixels,
            found.pred_boxes.tensor.numpy(),
            found.pred_classes.tolist(),
            names,
            scores=found.scores.tolist(),
            masks=found.pred_masks.numpy() if found.has("pred_masks") else None,
            scale=min(2.0, _LONG_SIDE / max(pixels.shape[:2])),
        )
