"""Draws detections and data set records on images, with Detectron2's own ``Visualizer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.colormap import colormap
from numpy.typing import ArrayLike, NDArray

from cwrgp.errors import MissingPackage
from cwrgp.report.figures import PALETTE


def class_colour(index: int) -> str:
    """The colour of a class as ``#rrggbb``: Okabe and Ito's, then Detectron2's."""
    if index < len(PALETTE) - 1:  # without black
        return PALETTE[index]
    colours = colormap(rgb=True)
    red, green, blue = (int(value) for value in colours[index % len(colours)])
    return f"#{red:02x}{green:02x}{blue:02x}"


def draw_detections(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    classes: Sequence[int],
    names: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    masks: ArrayLike | None = None,
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Draws boxes, masks, class names and scores; objects of one class have one colour.

    Args:
        image: (H, W, 3) RGB.
        boxes: (n, 4) XYXY in pixels of the image.
        classes: n class indices.
        names: of all classes.
        scores: n confidences in 0..1; None for a ground truth.
        masks: (n, H, W), bool.
        scale: how many times larger than the image the result is.

    Returns:
        (scale * H, scale * W, 3) RGB.

    Raises:
        ValueError: another form of image or masks, numbers of objects that differ, or a class
            without a name.
        MissingPackage: OpenCV, which the ``Visualizer`` needs, is not installed.
    """
    corners = np.asarray(boxes, dtype=float).reshape(-1, 4)
    given = {"boxes": corners, "classes": classes, "scores": scores, "masks": masks}
    counts = {name: len(np.asarray(v)) for name, v in given.items() if v is not None}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"boxes, classes, ... must be of as many objects, not {text}")
    labels = [_name(names, index) for index in classes]
    if scores is not None:
        labels = [
            f"{label} {100 * score:.0f}%" for label, score in zip(labels, scores, strict=True)
        ]
    segments = None if masks is None else list(np.asarray(masks, dtype=bool))
    if segments and segments[0].shape != image.shape[:2]:
        raise ValueError(f"masks of {segments[0].shape} for an image of {image.shape[:2]}")
    return _draw(image, corners, classes, labels, segments, scale)


def draw_record(
    image: NDArray[np.uint8], record: dict[str, Any], names: Sequence[str], *, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draws the annotations of a record of Detectron2's ``DatasetCatalog``.

    Args:
        image: (H, W, 3) RGB: the record's image.
        record: its ``annotations`` have ``bbox``, ``bbox_mode``, ``category_id``, perhaps
            ``segmentation`` (polygons or RLE) and ``iscrowd``.
        names: of all classes.
        scale: how many times larger than the image the result is.

    Returns:
        (scale * H, scale * W, 3) RGB.

    Raises:
        ValueError: as :func:`draw_detections`.
    """
    annotations = record.get("annotations", [])
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    classes = [a["category_id"] for a in annotations]
    labels = [
        _name(names, a["category_id"]) + (" (crowd)" if a.get("iscrowd") else "")
        for a in annotations
    ]
    segments = [a.get("segmentation") or [] for a in annotations]
    return _draw(image, np.array(boxes).reshape(-1, 4), classes, labels, segments, scale)


def _name(names: Sequence[str], index: int) -> str:
    if not 0 <= index < len(names):
        raise ValueError(f"class {index} has no name: there are {len(names)} names, from 0")
    return names[index]


def _draw(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    classes: Sequence[int],
    labels: list[str],
    segments: list[Any] | None,
    scale: float,
) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    try:
        from detectron2.utils.visualizer import Visualizer  # noqa: PLC0415 (needs OpenCV)
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise MissingPackage(
            "drawing needs OpenCV: pip install 'cwrgp[visualize]'", name="cv2"
        ) from error
    visualizer = Visualizer(image, Metadata(), scale=scale)
    colours = [class_colour(index) for index in classes]
    visualizer.overlay_instances(boxes=boxes, masks=segments, assigned_colors=colours)
    # White, within the image: the labels of overlay_instances run out of it at the right side.
    height, width = image.shape[:2]
    points = max((height * width) ** 0.5 // 90, 10 / scale)
    lowest = height - 1.7 * points  # a line's height, in pixels of the image
    for (left, top, right, _), label in zip(boxes, labels, strict=True):
        side, x = ("right", min(right, width)) if left + right > width else ("left", max(left, 0))
        position = (x, min(max(top, 0), lowest))
        visualizer.draw_text(
            label, position, font_size=points, color="white", horizontal_alignment=side
        )
    return visualizer.get_output().get_image()
