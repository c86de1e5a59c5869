"""Sizes of objects against the anchors of a detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2_transfer.data.annotated import AnnotatedData

ANCHOR_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)  # Detectron2's
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height to width, Detectron2's
SHORT_SIDE, LONG_SIDE = 800, 1333  # px, of Detectron2's INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST
MATCHED_IOU = 0.5


@dataclass(frozen=True)
class BoxSizes:
    """Objects by the square root of their area, in pixels of the resized image.

    Attributes:
        edges: (n + 1,) of the ranges, the first 0 and the last inf.
        counts: (n,) objects in each range.
        unmatched: objects whose IoU with every anchor is below `MATCHED_IOU`, even if the anchor
            has the object's centre.
        total: all objects.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    unmatched: int
    total: int


def box_sizes(
    data: AnnotatedData,
    anchor_sizes: Sequence[float] = ANCHOR_SIZES,
    *,
    short_side: float = SHORT_SIDE,
    long_side: float = LONG_SIDE,
) -> BoxSizes:
    """Counts objects by size, crowds left out.

    Args:
        data: with the sizes of its images.
        anchor_sizes: square roots of the areas of the anchors, in pixels of the resized image.
        short_side: to which images are resized.
        long_side: which they do not exceed.

    Raises:
        ValueError: an argument is not positive.
    """
    if not anchor_sizes or min(*anchor_sizes, short_side, long_side) <= 0:
        raise ValueError(f"anchors {list(anchor_sizes)}: sizes must be positive")
    sizes = np.array(
        [
            (scale * (x1 - x0), scale * (y1 - y0))
            for image in data.images
            if image.width is not None and image.height is not None
            for scale in (resize_factor(image.width, image.height, short_side, long_side),)
            for (x0, y0, x1, y1) in (thing.box for thing in image.things if not thing.crowd)
        ]
    ).reshape(-1, 2)
    anchors = np.array(
        [
            (size / math.sqrt(ratio), size * math.sqrt(ratio))
            for size in anchor_sizes
            for ratio in ASPECT_RATIOS
        ]
    )
    best = _iou(sizes, anchors).max(axis=1, initial=0.0)
    middle = sorted(anchor_sizes)
    edges = (0.0, middle[0] / 2, *middle, 2 * middle[-1], math.inf)
    counts, _ = np.histogram(np.sqrt(sizes.prod(axis=1)), bins=np.array(edges))
    return BoxSizes(
        edges=edges,
        counts=tuple(map(int, counts)),
        unmatched=int((best < MATCHED_IOU).sum()),
        total=len(sizes),
    )


def resize_factor(width: float, height: float, short_side: float, long_side: float) -> float:
    """By what an image is resized, as in Detectron2's ResizeShortestEdge."""
    return min(short_side / min(width, height), long_side / max(width, height))


def _iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU of boxes (n, 2) and anchors (m, 2), width and height, with one centre: (n, m)."""
    shared = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    return shared / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - shared)
