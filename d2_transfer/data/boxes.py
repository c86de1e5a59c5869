"""Boxes that can be used: clipped to their image, without the worthless ones."""

from __future__ import annotations

from collections.abc import Sequence

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.sizes import excess, is_finite

_MOST_BEYOND = 1 / 3  # of a set's boxes
_MOST_COMPARED = 1000  # boxes with their masks; RLEs are decoded
_ROUNDING = 0.01  # px: what six decimals of a side leave; clipped without a word


def check_unit(data: AnnotatedData) -> None:
    """Refuses boxes in relative numbers where a format has pixels.

    Raises:
        ValueError: more than a third of the boxes are within 1 x 1 pixel.
    """
    things = [
        thing
        for image in data.images
        for thing in image.things
        if is_finite(thing.box) and _is_valid(thing.voc_box or thing.box)
    ]
    tiny = [thing for thing in things if max(_numbers(thing)) <= 1.01]
    if len(tiny) > _MOST_BEYOND * len(things):
        raise ValueError(
            f"{tiny[0].place}: {len(tiny)} of {len(things)} boxes are within 1 x 1 pixel, so they"
            " are relative numbers; this format has pixels: multiply them by width and height"
        )


def _numbers(thing: Thing) -> Sequence[float]:
    """The numbers of a box as the file has them."""
    if thing.voc_box is not None:
        return thing.voc_box
    x0, y0, x1, y1 = thing.box
    return x0, y0, x1 - x0, y1 - y0


def mend_boxes(data: AnnotatedData, findings: Findings) -> None:
    """Clips boxes to their image and drops the worthless ones, in place.

    Images of unknown size keep boxes that reach beyond them.

    Args:
        data: boxes in pixels; sizes are those that the boxes are in.
        findings: gets what is clipped and dropped.

    Raises:
        ValueError: the boxes of the set mean something else than corners in pixels of their images.
    """
    _check_beyond(data)
    for image in data.images:
        kept = []
        for thing in image.things:
            problem = _worthless(thing, image)
            if problem:
                findings.skip(problem, thing.place)
                continue
            _clip(thing, image, findings)
            kept.append(thing)
        image.things = kept


def _check_beyond(data: AnnotatedData) -> None:
    pairs = [
        (image, thing)
        for image in data.images
        for thing in image.things
        if is_finite(thing.box) and _is_valid(thing.box)
    ]
    _check_corners(pairs)
    sized = [(i, t) for i, t in pairs if i.width is not None and i.height is not None]
    beyond = [(i, t) for i, t in sized if excess(t.box, i.width, i.height) > 0]  # type: ignore[arg-type]
    if len(beyond) <= _MOST_BEYOND * len(sized):
        return
    cause = "are the images of another size than the annotated ones?"
    if data.relative_file:
        cause = "does the file have pixels instead of numbers relative to the sides?"
    elif beyond[0][1].voc_box is None and all(_is_valid(_as_corners(t.box)) for _, t in pairs):
        cause = "are they corners x0, y0, x1, y1 instead of x, y, width, height?"
    image, thing = beyond[0]
    raise ValueError(
        f"{thing.place}: {len(beyond)} of {len(sized)} boxes reach beyond their image, this one"
        f" {_text(thing.box)} in {image.width:g} x {image.height:g} pixels; {cause}"
    )


def _check_corners(pairs: Sequence[tuple[AnnotatedImage, Thing]]) -> None:
    """Compares boxes with their polygons and areas, both as sizes and as corners."""
    compared, corners = 0, []
    for _, thing in pairs[:: 1 + len(pairs) // _MOST_COMPARED]:
        if thing.voc_box is not None:
            continue
        extent = box_of_mask(thing.mask)
        other = _as_corners(thing.box)
        if extent is not None:
            compared += 1
            if not _close(thing.box, extent) and _close(other, extent):
                corners.append(thing)
        elif thing.area is not None and not thing.mask:
            compared += 1
            if not _same_area(thing.box, thing.area) and _same_area(other, thing.area):
                corners.append(thing)
    if corners and len(corners) > compared / 2:
        raise ValueError(
            f"{corners[0].place}: its box {_text(corners[0].box)} fits its"
            f" {'mask' if corners[0].mask else 'area'} only when read as corners x0, y0, x1,"
            f" y1; this is so for {len(corners)} of {compared} boxes: write x, y, width, height"
        )


def _is_valid(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _as_corners(box: Box) -> Box:
    """The box if the file's width and height are corners."""
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def _close(a: Box, b: Box) -> bool:
    """Whether two boxes are the same within 2 px or 5 % of the sides."""
    tolerance = max(2.0, 0.05 * max(b[2] - b[0], b[3] - b[1]))
    return all(abs(p - q) <= tolerance for p, q in zip(a, b, strict=True))


def _same_area(box: Box, area: float) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return width > 0 and height > 0 and abs(width * height - area) <= 0.02 * area


def _worthless(thing: Thing, image: AnnotatedImage) -> str:
    """Why a box cannot be used; "" if it can."""
    if not is_finite(thing.box):
        return "box that is not finite"
    x0, y0, x1, y1 = thing.box
    if thing.voc_box is not None and (x1 - x0 <= 1 or y1 - y0 <= 1) and _is_point(thing.voc_box):
        return "box of width or height 0"
    if x1 < x0 or y1 < y0:
        return "box of negative width or height"
    if x1 == x0 or y1 == y0:
        return "box of width or height 0"
    if image.width is None or image.height is None:
        return ""
    if x1 <= 0 or y1 <= 0 or x0 >= image.width or y0 >= image.height:
        return "box wholly outside its image"
    return ""


def _is_point(corners: Box) -> bool:
    return corners[0] == corners[2] or corners[1] == corners[3]


def _clip(thing: Thing, image: AnnotatedImage, findings: Findings) -> None:
    if image.width is None or image.height is None:
        return
    x0, y0, x1, y1 = thing.box
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, image.width), min(y1, image.height))
    if box == thing.box:
        return
    if max(abs(a - b) for a, b in zip(box, thing.box, strict=True)) > _ROUNDING:
        findings.mend("box beyond its image, clipped", thing.place)
    thing.box = box
    thing.area = None  # the file's is that of the whole box
    if thing.voc_box is not None:
        thing.voc_box = (box[0] + 1, box[1] + 1, box[2], box[3])


def _text(box: Box) -> str:
    return f"({', '.join(f'{number:g}' for number in box)})"
