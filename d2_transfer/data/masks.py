"""Masks of objects: which of them can be used, in what form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from d2_transfer.data.annotated import Box, Mask
from d2_transfer.data.values import as_numbers


def usable_mask(mask: Any, height: int, width: int) -> tuple[Mask | None, list[str]]:
    """What is good of a mask.

    Args:
        mask: polygons ``[[x, y, ...], ...]``, one flat polygon, or an RLE, compressed or not.
        height: of the image in pixels.
        width: likewise.

    Returns:
        The mask as polygons or compressed RLE, None where nothing of it is usable; and what is
        wrong with the parts that are not, as short texts.
    """
    if mask in (None, [], {}, ""):
        return None, []
    if isinstance(mask, dict):
        return _usable_rle(mask, height, width)
    if not isinstance(mask, list):
        return None, ["mask that is neither polygons nor an RLE"]
    flat = not any(isinstance(part, list) for part in mask)
    good, problems = [], []
    for part in [mask] if flat else mask:
        problem = _polygon_problem(part, height, width)
        if problem:
            problems.append(problem)
        else:
            good.append(as_numbers(part))
    return good or None, problems  # type: ignore[return-value]


def _polygon_problem(part: Any, height: int, width: int) -> str:
    """Why a polygon cannot be used; "" if it can."""
    numbers = as_numbers(part)
    if numbers is None or not all(map(math.isfinite, numbers)):
        return "polygon that is not finite numbers"
    if len(numbers) % 2:
        return "polygon with an odd number of coordinates"
    points = np.reshape(numbers, (-1, 2))
    if len(np.unique(points, axis=0)) < 3:
        return "polygon of fewer than three points"
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "polygon outside its image"
    if x0 == x1 or y0 == y1:
        return "polygon without area"
    return ""


def _usable_rle(mask: dict[str, Any], height: int, width: int) -> tuple[Mask | None, list[str]]:
    from pycocotools import mask as rles  # noqa: PLC0415 (only where there are masks)

    size, counts = as_numbers(mask.get("size")), mask.get("counts")
    if size != [height, width]:
        return None, ["RLE of another size than its image"]
    if isinstance(counts, list):
        runs = as_numbers(counts)
        if runs is None or min(runs, default=-1) < 0 or sum(runs) != height * width:
            return None, ["RLE whose counts do not cover its image"]
        found = rles.frPyObjects(
            {"size": [height, width], "counts": [int(run) for run in runs]}, height, width
        )
        counts = found["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    if not isinstance(counts, str):
        return None, ["RLE without counts"]
    usable = {"size": [height, width], "counts": counts}
    try:
        pixels = int(rles.decode(usable).sum())
    except (ValueError, TypeError, UnicodeError):
        return None, ["damaged RLE"]
    return (usable, []) if pixels else (None, ["RLE without pixels"])


def box_of_mask(mask: Any) -> Box | None:
    """The corners of a mask's polygons; None of anything else."""
    if not isinstance(mask, list) or not mask:
        return None
    parts = mask if isinstance(mask[0], list) else [mask]
    numbers = [as_numbers(part) for part in parts]
    points = [n for n in numbers if n is not None and len(n) >= 6 and len(n) % 2 == 0]
    if not points:
        return None
    xs, ys = np.concatenate([p[0::2] for p in points]), np.concatenate([p[1::2] for p in points])
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def mask_area(mask: Mask, height: int, width: int) -> float:
    """The area of a usable mask in pixels, as COCO's API computes it."""
    from pycocotools import mask as rles  # noqa: PLC0415

    if isinstance(mask, list):
        mask = rles.merge(rles.frPyObjects(mask, height, width))
    return float(rles.area(mask))
