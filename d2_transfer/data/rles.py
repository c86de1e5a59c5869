"""Masks as run lengths: which of them can be used."""

from __future__ import annotations

from typing import Any

from d2_transfer.data.annotated import CLOSE
from d2_transfer.data.values import as_numbers

_MOST_PIXELS = 2**28  # of a mask whose image's size is not known


def is_rle(value: Any) -> bool:
    """Whether a value has the form of an RLE."""
    return isinstance(value, dict) and "counts" in value


def size_of_rle(mask: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width that an RLE states; None where they are no sides of an image."""
    size = as_numbers(mask.get("size"))
    if size is None or len(size) != 2 or min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
        return None
    return int(size[0]), int(size[1])


def usable_rle(mask: dict[str, Any], height: int, width: int) -> tuple[dict[str, Any] | None, str]:
    """An RLE that pycocotools decodes to the pixels of an image.

    Args:
        mask: compressed (a text, or bytes) or not (a list).
        height: of the image in pixels. A size that is off by up to 2 is cropped or filled up.
        width: likewise.

    Returns:
        The compressed RLE, None where it is not usable; and why.
    """
    from pycocotools import mask as rles  # noqa: PLC0415 (only where there are masks)

    size, counts = size_of_rle(mask), mask.get("counts")
    if size is None or max(abs(size[0] - height), abs(size[1] - width)) > CLOSE:
        return None, "RLE of another size than its image"
    if isinstance(counts, list):
        runs = as_numbers(counts)
        if runs is None or min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
            return None, "RLE whose counts do not cover its image"
        found = rles.frPyObjects({"size": size, "counts": [int(run) for run in runs]}, *size)
        counts = found["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    if not isinstance(counts, str):
        return None, "RLE without counts"
    try:
        pixels = rles.decode({"size": size, "counts": counts})
    except (ValueError, TypeError, UnicodeError):
        return None, "damaged RLE"
    # Of counts that end too early, the remaining pixels are whatever the memory held.
    if rles.encode(pixels)["counts"].decode() != counts and _sum(counts) != size[0] * size[1]:
        return None, "RLE whose counts do not cover its image"
    if size != (height, width):
        pixels = _fitted(pixels, height, width)
        counts = rles.encode(pixels)["counts"].decode()
    if not pixels.any():
        return None, "RLE without pixels"
    return {"size": [height, width], "counts": counts}, ""


def _sum(counts: str) -> int:
    """The sum of compressed counts: 5 bits a character, the lowest first; differences from the 3rd.

    pycocotools has decoded them, so the characters are valid.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of a number, whose highest bit is the sign
            value -= (bits & 16) << 1 << (shift - 5)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs)


def _fitted(pixels: Any, height: int, width: int) -> Any:
    """Pixels (H, W) cropped and filled up with 0 at the right and the bottom."""
    import numpy as np  # noqa: PLC0415

    fitted = np.zeros((height, width), np.uint8, order="F")
    part = pixels[:height, :width]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted


def united_rle(parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The union of usable RLEs of one image; None of none."""
    from pycocotools import mask as rles  # noqa: PLC0415

    if len(parts) < 2:
        return parts[0] if parts else None
    merged = rles.merge(parts)
    return {"size": parts[0]["size"], "counts": merged["counts"].decode()}
