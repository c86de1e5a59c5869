"""Draws objects on images: boxes, masks, names and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/),
# lightened where they would sink into a dark photograph.
CLASS_COLOURS: tuple[str, ...] = (
    "#e69f00",
    "#56b4e9",
    "#12b886",
    "#f0e442",
    "#ff7a45",
    "#e68fc3",
    "#b8c4ff",
    "#ffffff",
)


@dataclass(frozen=True)
class Detections:
    """Objects in one image: the truth, or what a detector found.

    Attributes:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image, ends exclusive.
        classes: N class indices.
        scores: N confidences in 0..1; None for the truth.
        masks: (N, H, W) bool; None if there are none.
    """

    boxes: NDArray[np.floating | np.integer]
    classes: Sequence[int]
    scores: Sequence[float] | None = None
    masks: NDArray[np.bool_] | None = None

    def above(self, threshold: float) -> Detections:
        """Those with at least this score, best first; all of them if they have no scores."""
        if self.scores is None:
            return self
        order = [i for i in np.argsort(self.scores)[::-1] if self.scores[i] >= threshold]
        return Detections(
            self.boxes[order],
            [self.classes[i] for i in order],
            [self.scores[i] for i in order],
            None if self.masks is None else self.masks[order],
        )


def class_colour(index: int) -> str:
    """The colour of a class as ``#rrggbb``; the same on every image."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def draw_detections(
    image: NDArray[np.uint8], objects: Detections, names: Sequence[str], scale: int = 3
) -> Image.Image:
    """Draws masks (tinted, outlined), boxes and labels on an enlarged copy of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        objects: what to draw, the first on top.
        names: class names.
        scale: how many times larger than the image the result is.
    """
    height, width = image.shape[:2]
    canvas = Image.fromarray(image).resize(
        (width * scale, height * scale), Image.Resampling.BICUBIC
    )
    order = range(len(objects.classes) - 1, -1, -1)
    if objects.masks is not None:
        for i in order:
            _tint(canvas, objects.masks[i], class_colour(objects.classes[i]))
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(scale * 0.7))
    for i in order:
        box = [float(v) * scale for v in objects.boxes[i]]
        corner = (max(box[2] - 1, box[0]), max(box[3] - 1, box[1]))
        draw.rectangle(
            (box[0], box[1], *corner), outline=class_colour(objects.classes[i]), width=line
        )
    for i in order:
        label = names[objects.classes[i]]
        if objects.scores is not None:
            label += f" {round(100 * objects.scores[i])}"
        _label(draw, objects.boxes[i] * scale, label, class_colour(objects.classes[i]), scale)
    return canvas


def _tint(canvas: Image.Image, mask: NDArray[np.bool_], colour: str) -> None:
    """Lays a half transparent colour over a mask and a firm line along its edge."""
    large = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        canvas.size, Image.Resampling.BILINEAR
    )
    inside = np.asarray(large) > 127
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    alpha = np.where(inside & ~core, 230, np.where(inside, 95, 0)).astype(np.uint8)
    canvas.paste(Image.new("RGB", canvas.size, colour), mask=Image.fromarray(alpha))


def _label(
    draw: ImageDraw.ImageDraw,
    box: NDArray[np.floating | np.integer],
    text: str,
    colour: str,
    scale: int,
) -> None:
    """Writes ``text`` on a patch of ``colour`` above the box, or inside where there is no room."""
    font = ImageFont.load_default(size=6 * scale)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    pad = scale
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(float(box[0]), 0), max(draw.im.size[0] - width, 0))
    y = float(box[1]) - height
    if y < 0:
        y = max(float(box[1]), 0)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + pad - left, y + pad - top), text, fill="#14161a", font=font)


def count_found(truth: Detections, found: Detections, iou: float = 0.5) -> int:
    """How many true objects have a detection of their class with this box IoU, each used once."""
    free = set(range(len(found.classes)))
    hits = 0
    for box, class_index in zip(truth.boxes, truth.classes, strict=True):
        same = [i for i in free if found.classes[i] == class_index]
        best = max(same, key=lambda i: _box_iou(box, found.boxes[i]), default=None)
        if best is not None and _box_iou(box, found.boxes[best]) >= iou:
            free.remove(best)
            hits += 1
    return hits


def _box_iou(a: NDArray[np.floating | np.integer], b: NDArray[np.floating | np.integer]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = float(width * height)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (float(areas) - both)
