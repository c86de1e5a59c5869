"""Predictions as files: COCO JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from PIL import Image

from cwrgp.file_io.atomic import replacing, write_bytes
from cwrgp.image_files import name_below
from d2_transfer.data.read_image import read_image
from d2_transfer.prediction import Prediction
from d2_transfer.visualize import draw_detections

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # others are drawn as PNG


def as_coco(
    predictions: Sequence[Prediction], classes: Sequence[str], root: Path
) -> dict[str, Any]:
    """Predictions in the form of a COCO data set whose annotations have a ``score``.

    Args:
        predictions: those of unreadable images are omitted.
        classes: names; category ids count from 1 in their order.
        root: file names are relative to it.

    Returns:
        ``images``, ``annotations`` and ``categories``; ``annotations`` alone is in COCO's results
        format.
    """
    readable = [prediction for prediction in predictions if not prediction.unreadable]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, prediction in enumerate(readable, 1):
        size = {"width": prediction.width, "height": prediction.height}
        images.append({"id": number, "file_name": name_below(prediction.file, root), **size})
        for index, (x0, y0, x1, y1) in enumerate(prediction.boxes.tolist()):
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(prediction.classes[index]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "score": float(prediction.scores[index]),
            }
            if prediction.masks is not None:
                mask = prediction.masks[index]
                entry |= {"segmentation": mask, "area": float(pycocotools.mask.area(mask))}
            annotations.append(entry)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
    }


def write_predictions(
    predictions: Sequence[Prediction], classes: Sequence[str], root: Path, path: Path
) -> None:
    """Writes `as_coco` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_coco(predictions, classes, root), ensure_ascii=False)
    # File names need not be UTF-8; the escapes that stand for other bytes are JSON's, too.
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_picture(
    prediction: Prediction,
    classes: Sequence[str],
    path: Path,
    *,
    threshold: float,
    pixel_range: Sequence[float] = (),
) -> None:
    """Draws the detections of an image.

    Args:
        prediction: of a readable image.
        classes: names.
        path: of the picture, in the format that its suffix names.
        threshold: lowest score of a detection that is drawn.
        pixel_range: INPUT.PIXEL_RANGE.
    """
    image = read_image(str(prediction.file), "RGB", pixel_range=pixel_range)
    drawn = prediction.scores >= threshold
    masks = None
    if prediction.masks is not None:
        chosen = [mask for mask, kept in zip(prediction.masks, drawn, strict=True) if kept]
        masks = np.zeros((0, *image.shape[:2]), dtype=bool)
        if chosen:
            masks = pycocotools.mask.decode(chosen).transpose(2, 0, 1).astype(bool)
    picture = draw_detections(
        image,
        prediction.boxes[drawn],
        prediction.classes[drawn].tolist(),
        classes,
        scores=prediction.scores[drawn].tolist(),
        masks=masks,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, Image.registered_extensions()[path.suffix.lower()])


def picture_name(file: Path, root: Path) -> str:
    """The name of an image's picture: that of the image, or with .png after it."""
    name = name_below(file, root)
    return name if file.suffix.lower() in _PICTURES else f"{name}.png"
