"""Masks of objects: which of them can be used, in what form."""

from __future__ import annotations

import math
from itertools import chain
from operator import mul, sub
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, Box, Mask
from d2_transfer.data.findings import Findings
from d2_transfer.data.rles import is_rle, size_of_rle, united_rle, usable_rle
from d2_transfer.data.values import as_numbers

FAR = 10  # sides of its image; pycocotools takes memory for each pixel of an outline


def usable_mask(mask: Any, height: int, width: int) -> tuple[Mask | None, list[str]]:
    """What is good of a mask.

    Args:
        mask: polygons ``[[x, y, ...], ...]``, one flat polygon, lists of points, or an RLE,
            compressed or not, or several in a list.
        height: of the image in pixels.
        width: likewise.

    Returns:
        The mask as polygons or compressed RLE, None where nothing of it is usable; and what is
        wrong with the parts that are not, as short texts.
    """
    if mask in (None, [], {}, ""):
        return None, []
    if isinstance(mask, dict):
        return _usable_rles([mask], height, width)
    if isinstance(mask, list) and all(map(is_rle, mask)):
        return _usable_rles(mask, height, width)
    return _usable_polygons(mask, height, width)


def _usable_rles(
    masks: list[dict[str, Any]], height: int, width: int
) -> tuple[Mask | None, list[str]]:
    found = [usable_rle(mask, height, width) for mask in masks]
    good = [mask for mask, _ in found if mask is not None]
    return united_rle(good), [problem for _, problem in found if problem]


def _usable_polygons(
    mask: Any, height: float, width: float
) -> tuple[list[list[float]] | None, list[str]]:
    if not isinstance(mask, list):
        return None, ["mask that is neither polygons nor an RLE"]
    good, problems = [], []
    for part in _polygons(mask):
        problem = _polygon_problem(part, height, width)
        if problem:
            problems.append(problem)
        else:
            good.append(as_numbers(part))
    return good or None, problems  # type: ignore[return-value]


def _polygons(mask: list[Any]) -> list[Any]:
    """The polygons of a list, of a flat list, of lists of points, and of lists in a list."""
    if not any(isinstance(part, list | dict) for part in mask):
        return [mask]
    if len(mask) >= 3 and all(_is_point(part) for part in mask):
        return [list(chain.from_iterable(map(_coordinates, mask)))]
    polygons: list[Any] = []
    for part in mask:
        if not isinstance(part, list) or not any(isinstance(value, list | dict) for value in part):
            polygons.append(part)
        elif all(map(_is_point, part)):
            polygons.append(list(chain.from_iterable(map(_coordinates, part))))
        else:
            polygons += part
    return polygons


def _is_point(value: Any) -> bool:
    return as_numbers(_coordinates(value)) is not None


def _coordinates(point: Any) -> list[Any]:
    """x and y of ``[x, y]`` or ``{"x": x, "y": y}``; [None] of anything else."""
    if isinstance(point, dict) and point.keys() >= {"x", "y"}:
        return [point["x"], point["y"]]
    return point if isinstance(point, list) and len(point) == 2 else [None]


def _polygon_problem(part: Any, height: float, width: float) -> str:
    """Why a polygon cannot be used; "" if it can."""
    numbers = as_numbers(part)
    if numbers is None or not all(map(math.isfinite, numbers)):
        return "polygon that is not finite numbers"
    if len(numbers) % 2:
        return "polygon with an odd number of coordinates"
    xs, ys = numbers[0::2], numbers[1::2]
    if len({*zip(xs, ys, strict=True)}) < 3:
        return "polygon of fewer than three points"
    x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "polygon outside its image"
    if x0 == x1 or y0 == y1:
        return "polygon without area"
    far = FAR * max(width, height)
    if min(x0, y0) < -far or max(x1, y1) > far:
        return "polygon that reaches far beyond its image"
    inside = x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
    if math.isfinite(width) and not (inside and _is_thick(xs, ys)):
        from pycocotools import mask as rles  # noqa: PLC0415 (only where there are masks)

        if not rles.area(rles.frPyObjects([numbers], int(height), int(width)))[0]:
            return "polygon without pixels"
    return ""


def _is_thick(xs: list[float], ys: list[float]) -> bool:
    """Whether the area of a polygon exceeds its perimeter, so that it has pixels for certain."""
    next_xs, next_ys = [*xs[1:], xs[0]], [*ys[1:], ys[0]]
    area = abs(sum(map(mul, xs, next_ys)) - sum(map(mul, next_xs, ys))) / 2
    sides = map(math.hypot, map(sub, next_xs, xs), map(sub, next_ys, ys))
    return area > sum(sides)


def box_of_mask(mask: Any, size: tuple[float, float] | None = None) -> Box | None:
    """The corners of what is good of a mask; None where nothing is.

    Args:
        mask: as for `usable_mask`.
        size: height and width of the image; None: not known, so nothing is outside, and an RLE has
            the size that it states.
    """
    if size is not None:
        usable, _ = usable_mask(mask, round(size[0]), round(size[1]))
        return _extent(usable)
    if not isinstance(mask, dict):
        return _extent(_usable_polygons(mask, math.inf, math.inf)[0])
    stated = size_of_rle(mask)
    return None if stated is None else _extent(usable_rle(mask, *stated)[0])


def _extent(mask: Mask | None) -> Box | None:
    """The corners of a usable mask."""
    if mask is None:
        return None
    if isinstance(mask, dict):
        from pycocotools import mask as rles  # noqa: PLC0415

        x, y, width, height = rles.toBbox(mask).tolist()
        return x, y, x + width, y + height
    xs = list(chain.from_iterable(part[0::2] for part in mask))
    ys = list(chain.from_iterable(part[1::2] for part in mask))
    return min(xs), min(ys), max(xs), max(ys)


def box_as_mask(box: Box, height: int, width: int) -> dict[str, Any]:
    """The pixels of a box, as a compressed RLE."""
    from pycocotools import mask as rles  # noqa: PLC0415

    x0, y0, x1, y1 = box
    found = rles.merge(rles.frPyObjects([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width))
    return {"size": [height, width], "counts": found["counts"].decode()}


def mask_area(mask: Mask, height: int, width: int) -> float:
    """The area of a usable mask in pixels, as COCO's API computes it."""
    from pycocotools import mask as rles  # noqa: PLC0415

    if isinstance(mask, list):
        mask = rles.merge(rles.frPyObjects(mask, height, width))
    return float(rles.area(mask))


def mend_masks(data: AnnotatedData, maskless: str, findings: Findings) -> str:
    """Keeps what is good of the masks, in place.

    Args:
        data: images with their sizes.
        maskless: what becomes of an object without a usable mask: "box" keeps it without, "skip"
            drops it.
        findings: gets the parts that are skipped.

    Returns:
        The mask format of Detectron2 that holds them all: "polygon" or "bitmask".

    Raises:
        ValueError: no object has a mask, or an image's size is not known.
    """
    formats = set()
    for image in data.images:
        kept = []
        for thing in image.things:
            if image.width is None or image.height is None:
                raise ValueError(f"{image.place}: masks need the width and height of every image")
            size = round(image.height), round(image.width)
            thing.mask, problems = usable_mask(thing.mask, *size)
            if thing.mask is None and not thing.crowd:
                why = f"object without a mask{f' ({problems[0]})' if problems else ''}"
                if maskless == "skip":
                    findings.skip(why, thing.place)
                    continue
                findings.mend(f"{why}, its box used alone", thing.place)
            elif thing.mask is not None:
                for problem in problems:
                    findings.skip(problem, thing.place)
            kept.append(thing)
            if thing.mask is not None and not thing.crowd:
                formats.add("polygon" if isinstance(thing.mask, list) else "bitmask")
        image.things = kept
    if not formats:
        raise ValueError(
            f"{data.source}: no object has a usable mask; set MODEL.MASK_ON False to use the boxes"
        )
    if "bitmask" in formats:
        findings.note("masks with RLE, read as INPUT.MASK_FORMAT bitmask")
    return "bitmask" if "bitmask" in formats else "polygon"
