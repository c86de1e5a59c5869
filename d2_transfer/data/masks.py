"""Masks of objects: which of them can be used, in what form."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, Box, Mask
from d2_transfer.data.findings import Findings
from d2_transfer.data.values import as_numbers

_MOST_PIXELS = 2**28  # of a mask that is decoded without the size of its image being known


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
    good, problems = [], []
    for part in _polygons(mask):
        problem = _polygon_problem(part, height, width)
        if problem:
            problems.append(problem)
        else:
            good.append(as_numbers(part))
    return good or None, problems  # type: ignore[return-value]


def _polygons(mask: list[Any]) -> list[Any]:
    """The polygons of a list, of a flat list, and of lists of points."""
    if not any(isinstance(part, list) for part in mask):
        return [mask]
    if len(mask) >= 3 and all(_is_point(part) for part in mask):
        return [list(chain(*mask))]
    return [
        list(chain(*part))
        if isinstance(part, list) and part and all(map(_is_point, part))
        else part
        for part in mask
    ]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and as_numbers(value) is not None


def _polygon_problem(part: Any, height: int, width: int) -> str:
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
    """The corners of a mask; None where it has none."""
    if isinstance(mask, dict):
        return _box_of_rle(mask)
    if not isinstance(mask, list) or not mask:
        return None
    numbers = [as_numbers(part) for part in _polygons(mask)]
    points = [n for n in numbers if n is not None and len(n) >= 6 and len(n) % 2 == 0]
    if not points or not all(map(math.isfinite, chain(*points))):
        return None
    xs = list(chain.from_iterable(p[0::2] for p in points))
    ys = list(chain.from_iterable(p[1::2] for p in points))
    return min(xs), min(ys), max(xs), max(ys)


def _box_of_rle(mask: dict[str, Any]) -> Box | None:
    from pycocotools import mask as rles  # noqa: PLC0415

    size = as_numbers(mask.get("size"))
    if size is None or len(size) != 2 or not 0 < size[0] * size[1] <= _MOST_PIXELS:
        return None
    usable, _ = _usable_rle(mask, int(size[0]), int(size[1]))
    if usable is None:
        return None
    x, y, width, height = rles.toBbox(usable).tolist()
    return x, y, x + width, y + height


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
