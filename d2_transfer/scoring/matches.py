"""Which detections find an object in COCO's metric."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from d2_transfer.scoring.truth import Truth
from d2_transfer.scoring.weighted import ClassMatches

MAX_DETECTIONS = 100  # of an image and class, as in COCO's AP
# Square pixels, as in COCO's metric.
AREAS = {"all": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
_CLASSES_AT_ONCE = 8  # hotcoco's matches of 5,000 images and 80 classes take 2 GB as objects


def coco_matches(
    truth: Truth, detections: Sequence[Mapping[str, Any]], iou_type: str, area: str = "all"
) -> list[ClassMatches]:
    """The matches of COCO's metric, for each class in the order of ``truth.classes``.

    Args:
        truth: the annotations.
        detections: checked entries; for "segm" with masks in compressed RLE and their areas.
        iou_type: "bbox" or "segm".
        area: of the objects, one of :data:`AREAS`.
    """
    import hotcoco

    place = {image["id"]: n for n, image in enumerate(truth.content["images"])}
    loaded = truth.hotcoco.load_res(list(detections)) if detections else None
    if loaded is not None and iou_type == "segm":
        masks = [entry["segmentation"] for entry in detections]
        areas = np.asarray(hotcoco.mask.area(masks), dtype=np.float64)
        loaded.update_anns(ids=np.arange(1, len(masks) + 1), area=areas)
    categories = [category["id"] for category in truth.content["categories"]]
    found = {number: _Collected(len(place)) for number in categories}
    for start in range(0, len(categories), _CLASSES_AT_ONCE):
        chunk = categories[start : start + _CLASSES_AT_ONCE]
        for entry in _evaluated(truth, loaded, iou_type, chunk, AREAS[area]):
            found[entry["category_id"]].add(place[entry["image_id"]], entry)
    return [found[number].sorted() for number in categories]


def _evaluated(
    truth: Truth, loaded: Any, iou_type: str, categories: list[Any], area: tuple[float, float]
) -> Iterator[dict[str, Any]]:
    """hotcoco's matches of images and classes that have objects or detections."""
    import hotcoco

    if loaded is None:
        loaded = hotcoco.COCO({**truth.content, "annotations": []})
    evaluation = hotcoco.COCOeval(truth.hotcoco_for(iou_type), loaded, iou_type)
    evaluation.params.cat_ids = categories
    evaluation.params.area_rng = [list(area)]
    evaluation.params.area_rng_lbl = ["all"]
    evaluation.params.max_dets = [MAX_DETECTIONS]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    return (entry for entry in evaluation.eval_imgs if entry is not None)


class _Collected:
    """The matches of one class, image by image."""

    def __init__(self, images: int) -> None:
        self._objects = np.zeros(images, dtype=np.int64)
        self._images: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._matched: list[np.ndarray] = []
        self._ignored: list[np.ndarray] = []

    def add(self, image: int, entry: dict[str, Any]) -> None:
        ignored = np.asarray(entry["gtIgnore"], dtype=bool)
        self._objects[image] = (~ignored).sum()
        scores = np.asarray(entry["dtScores"], dtype=np.float64)
        if not len(scores):
            return
        ignored = np.asarray(entry["dtIgnore"], dtype=bool)
        counts = ~ignored.all(axis=0)  # most are of another area, if one is asked for
        self._scores.append(scores[counts])
        self._images.append(np.full(counts.sum(), image))
        self._matched.append((np.asarray(entry["dtMatches"]) != 0)[:, counts])
        self._ignored.append(ignored[:, counts])

    def sorted(self) -> ClassMatches:
        if not self._scores:
            none = np.zeros((10, 0), dtype=bool)
            return ClassMatches(np.zeros(0, np.int64), none, none, self._objects)
        scores, images = np.concatenate(self._scores), np.concatenate(self._images)
        matched = np.concatenate(self._matched, axis=1)
        ignored = np.concatenate(self._ignored, axis=1)
        order = np.argsort(-scores, kind="stable")  # as both backends of COCO's metric
        ignored = ignored[:, order]
        return ClassMatches(images[order], matched[:, order] & ~ignored, ignored, self._objects)
