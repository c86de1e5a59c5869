"""The test images on which two arms differ most, drawn side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2_transfer.data.annotated import AnnotatedImage
from d2_transfer.data.load import LoadedData
from d2_transfer.data.read_image import read_image
from d2_transfer.visualize import draw_detections

SHOWN = 0.5  # the least score of what is drawn and counted
_IOU = 0.5


@dataclass(frozen=True)
class Example:
    """An image and what was found in it.

    Attributes:
        name: of the file.
        scores: F1 of the reference and of the arm: 2 found / (objects + detections).
        pictures: truth, reference, arm; (H, W, 3) uint8 each.
    """

    name: str
    scores: tuple[float, float]
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray]


Detections = Mapping[Any, Sequence[Mapping[str, Any]]]


def find_examples(
    data: LoadedData,
    detections: tuple[Detections, Detections],
    *,
    count: int = 2,
    pixel_range: Sequence[float] = (),
) -> tuple[list[Example], list[Example]]:
    """The images with the largest gains and the largest losses in F1.

    Args:
        data: the test set.
        detections: of the reference and of the arm: image id -> entries in COCO's results format.
        count: of each, at most.
        pixel_range: of images with more than 8 bits.
    """
    places = {number: n for n, number in enumerate(data.data.category_ids)}
    rated = []
    for image in data.data.images:
        found = [_above(of_run.get(image.id, ()), places) for of_run in detections]
        scores = [_f1(image, data.data.classes, boxes, labels) for boxes, labels, _ in found]
        rated.append((scores[1] - scores[0], image, (scores[0], scores[1]), found))
    rated.sort(key=lambda item: -item[0])
    gains = [item for item in rated[:count] if item[0] > 0]
    losses = [item for item in rated[::-1][:count] if item[0] < 0]
    drawn = [
        [_draw(data, image, scores, found, pixel_range) for _, image, scores, found in chosen]
        for chosen in (gains, losses)
    ]
    return drawn[0], drawn[1]


Found = tuple[np.ndarray, list[int], list[float]]


def _above(entries: Sequence[Mapping[str, Any]], places: Mapping[Any, int]) -> Found:
    """Corners, classes and scores of what is shown, the most confident first."""
    kept = sorted((e for e in entries if e["score"] >= SHOWN), key=lambda e: -e["score"])
    boxes = np.array([e["bbox"] for e in kept], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, [places[e["category_id"]] for e in kept], [e["score"] for e in kept]


def _f1(
    image: AnnotatedImage, classes: Sequence[str], boxes: np.ndarray, labels: list[int]
) -> float:
    things = [thing for thing in image.things if not thing.crowd]
    if not len(things) + len(boxes):
        return 1.0
    taken: set[int] = set()
    for box, label in zip(boxes, labels, strict=True):
        overlaps = [
            (_iou(box, np.array(thing.box)), n)
            for n, thing in enumerate(things)
            if n not in taken and classes[label] == thing.label
        ]
        best, n = max(overlaps, default=(0.0, -1))
        if best >= _IOU:
            taken.add(n)
    return 2 * len(taken) / (len(things) + len(boxes))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def _draw(
    data: LoadedData,
    image: AnnotatedImage,
    scores: tuple[float, float],
    found: Sequence[Found],
    pixel_range: Sequence[float],
) -> Example:
    names = data.data.classes
    pixels = read_image(str(image.file), "RGB", turned=image.turned, pixel_range=list(pixel_range))
    scale = min(1.0, 640 / max(pixels.shape[:2])) if max(pixels.shape[:2]) > 320 else 2.0
    things = [thing for thing in image.things if not thing.crowd]
    labels = [names.index(thing.label) for thing in things]
    truth = draw_detections(pixels, [thing.box for thing in things], labels, names, scale=scale)
    first, second = (
        draw_detections(pixels, boxes, classes, names, scores=s, scale=scale)
        for boxes, classes, s in found
    )
    return Example(str(image.file.name if image.file else image.id), scores, (truth, first, second))
