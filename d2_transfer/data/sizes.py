"""Which size and orientation the boxes of an image are in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cwrgp.image_check import ImageFile
from d2_transfer.data.annotated import CLOSE, AnnotatedData, AnnotatedImage, Box, Mask
from d2_transfer.data.findings import Findings

Size = tuple[float, float]  # width, height

_NARROWEST = 200  # longer to shorter side; beyond it a resized image may have no pixel


def settle_sizes(data: AnnotatedData, files: Mapping[Path, ImageFile], findings: Findings) -> None:
    """Sets width, height and ``turned`` of each image from its file, in place.

    Relative boxes and polygons become pixels.

    Args:
        data: with a readable file for each image.
        files: what the files are.
        findings: gets the sizes that are mended.

    Raises:
        ValueError: an image has another size than its annotations state.
    """
    undecided = []
    votes = set()
    for image in data.images:
        assert image.file is not None
        file = files[image.file]
        turned = True if data.relative else _orientation(image, file, findings)
        if turned is None and (turned := _where_boxes_fit(image, file)) is not None:
            how = "applied" if turned else "not applied"
            findings.mend(f"EXIF orientation {how}, since all boxes fit only so", image.place)
        if turned is None:
            undecided.append(image)
        else:
            image.turned = turned
            if file.size != file.size_as_seen and not data.relative:
                votes.add(turned)
    agreed = votes == {False}
    for image in undecided:
        image.turned = not agreed
        findings.mend(
            "size that does not show whether the EXIF orientation applies, "
            + ("not applied, as in the other images" if agreed else "applied"),
            image.place,
        )
    for image in data.images:
        assert image.file is not None
        file = files[image.file]
        image.width, image.height = file.size_as_seen if image.turned else file.size
        if data.relative:
            _scale(image, image.width, image.height)
    data.relative = False


def _orientation(image: AnnotatedImage, file: ImageFile, findings: Findings) -> bool | None:
    """Whether the boxes are in the image after its EXIF orientation; None: the size does not tell.

    Where there is no orientation, True.
    """
    stored, seen = file.size, file.size_as_seen
    matters = file.orientation != 1
    if image.width is None or image.height is None:
        findings.mend("no width or height, the image's used", image.place)
        return None if matters else True
    stated = (image.width, image.height)
    if stated == seen == stored:
        return None if matters else True
    if stated == seen:
        return True
    if stated == stored:
        findings.mend("EXIF orientation that the boxes ignore, not applied", image.place)
        return False
    close = [size for size in (stored, seen) if _distance(stated, size) <= CLOSE]
    if close:
        findings.mend("size off by 1 or 2 pixels, the image's used", image.place)
        if len(set(close)) == 2 or stored == seen:
            return None if matters else True
        return close[0] == seen
    if stored == seen and stated == stored[::-1] and _fits(image, stored):
        findings.mend("width and height exchanged, the image's used", image.place)
        return None if matters else True
    raise ValueError(
        f"{image.place}: its size is {stated[0]:g} x {stated[1]:g}, but {image.file} has"
        f" {seen[0]} x {seen[1]} pixels; was it annotated on a resized copy? Give the files that"
        " were annotated, or annotations of these"
    )


def problem_of(file: ImageFile) -> str:
    """Why a detector cannot take an image; "" if it can."""
    if not file.problem and max(file.size) > _NARROWEST * min(file.size):
        return f"too narrow ({file.width} x {file.height} pixels)"
    return file.problem


def _where_boxes_fit(image: AnnotatedImage, file: ImageFile) -> bool | None:
    """Whether all boxes fit only in the turned image, or only in the stored one; None: neither."""
    turned, stored = _fits(image, file.size_as_seen), _fits(image, file.size)
    return turned if turned != stored else None


def _distance(a: Size, b: Size) -> float:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def _fits(image: AnnotatedImage, size: Size) -> bool:
    """Whether all boxes are inside an image of a size."""
    return all(excess(thing.box, *size) <= 0 for thing in image.things if is_finite(thing.box))


def is_finite(box: Box) -> bool:
    """Whether all corners are finite."""
    return math.isfinite(sum(box))  # a sum with nan or inf in it is never finite


def excess(box: Box, width: float, height: float) -> float:
    """By how many pixels a box reaches beyond its image, less max(1 px, 1 % of the side)."""
    x0, y0, x1, y1 = box
    beyond_x = max(-x0, x1 - width) - max(1.0, 0.01 * width)
    beyond_y = max(-y0, y1 - height) - max(1.0, 0.01 * height)
    return max(beyond_x, beyond_y)


def _scale(image: AnnotatedImage, width: float, height: float) -> None:
    """Turns relative numbers into pixels."""

    def scale_box(box: Box) -> Box:
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    def scale_mask(mask: Mask | None) -> Mask | None:
        if not isinstance(mask, list):
            return mask
        return [[v * (height if i % 2 else width) for i, v in enumerate(part)] for part in mask]

    image.things = [
        replace(thing, box=scale_box(thing.box), mask=scale_mask(thing.mask))
        for thing in image.things
    ]
