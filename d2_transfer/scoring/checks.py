"""Checks of an entry of results, which name it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

from d2_transfer.data.masks import FAR


def check_object(
    where: str, entry: Mapping[str, Any], images: Container[Any], categories: Container[Any]
) -> None:
    """Checks what an annotation and a result have in common.

    Args:
        where: what it is, for the message.
        entry: with image_id, category_id and bbox.
        images: the ids that exist.
        categories: likewise.

    Raises:
        ValueError: something is missing, unknown or no box.
    """
    if missing := [key for key in ("image_id", "category_id", "bbox") if key not in entry]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for key, known in (("image_id", images), ("category_id", categories)):
        is_id = isinstance(entry[key], int | str) and type(entry[key]) is not bool
        if not is_id or entry[key] not in known:
            raise ValueError(f"{where} has the unknown {key} {entry[key]!r}")
    box = entry["bbox"]
    if not is_numbers(box) or len(box) != 4 or min(box[2:]) < 0:
        raise ValueError(
            f"{where} has the bbox {box}; it must be x, y, width, height, finite, and not below 0"
        )


def check_mask(where: str, mask: Any, size: list[Any]) -> None:
    """Checks the ``segmentation`` of an object.

    Args:
        where: what it belongs to, for the message.
        mask: the value.
        size: height and width of the image.

    Raises:
        ValueError: neither polygons near the image nor an RLE of this size.
    """
    if isinstance(mask, dict):
        if not isinstance(mask.get("counts"), str | list) or mask.get("size") != size:
            raise ValueError(f"{where}: its mask must be an RLE with counts and the size {size}")
        return
    polygons = mask if isinstance(mask, list) else [mask]
    if not polygons or not all(is_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        raise ValueError(
            f"{where}: its mask must be an RLE or polygons of three points or more,"
            " [[x, y, x, y, x, y, ...], ...]"
        )
    far = FAR * max(size)
    if any(abs(value) > far for polygon in polygons for value in polygon):
        raise ValueError(f"{where}: its mask reaches far beyond its image, of the size {size}")


def is_numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers."""
    return isinstance(value, list) and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
