"""What the numbers of boxes mean: pixels as they should, or something else."""

from __future__ import annotations

from collections.abc import Sequence

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.sizes import excess, is_finite

_MOST_BEYOND = 1 / 3  # of a set's boxes
_FEW, _LARGE = 20, 300  # boxes and px, from which on percentages are told from pixels
_MOST_COMPARED = 1000  # boxes with their masks; RLEs are decoded
_LEAST_IOU = 0.5  # of a box and the extent of its mask; a box of hidden parts may be larger


def check_unit(data: AnnotatedData, findings: Findings) -> None:
    """Refuses boxes in relative numbers where a format has pixels, and leaves out a few, in place.

    A third is enough: of files that were joined, one may have pixels, and no set has so many
    objects in the first pixel of its images.

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
    for thing in tiny:
        findings.skip("box within 1 x 1 pixel, as relative numbers are", thing.place)
    dropped = {id(thing) for thing in tiny}
    for image in data.images if dropped else ():
        image.things = [thing for thing in image.things if id(thing) not in dropped]


def _numbers(thing: Thing) -> Sequence[float]:
    """The numbers of a box as the file has them."""
    if thing.voc_box is not None:
        return thing.voc_box
    x0, y0, x1, y1 = thing.box
    return x0, y0, x1 - x0, y1 - y0


def check_meaning(data: AnnotatedData, *, masks: bool) -> None:
    """Refuses boxes that are no x, y, width, height in pixels of their images.

    Args:
        data: boxes as they are in the file; sizes are those that the boxes are in.
        masks: whether masks are used, so that they have to agree with the boxes.

    Raises:
        ValueError: too many boxes reach beyond their image, or most fit their mask or area only
            when read in another way, or contradict their mask.
    """
    pairs = [
        (image, thing)
        for image in data.images
        for thing in image.things
        if is_finite(thing.box) and _is_valid(thing.box)
    ]
    _check_corners(pairs, masks=masks)
    sized = [(i, t) for i, t in pairs if i.width is not None and i.height is not None]
    if not data.relative_file:
        _check_percent(sized)
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


def _check_percent(pairs: Sequence[tuple[AnnotatedImage, Thing]]) -> None:
    """Refuses boxes that fill 100 x 100 pixels of much larger images, as percentages do."""
    boxes = [thing.box for _, thing in pairs]
    sides = [side for image, _ in pairs for side in (image.width, image.height) if side]
    if len(boxes) < _FEW or min(sides) < _LARGE:
        return
    most = max(box[2] for box in boxes), max(box[3] for box in boxes)
    if max(most) <= 101 and min(most) > 80:
        raise ValueError(
            f"{pairs[0][1].place}: all {len(boxes)} boxes are within the first 100 x 100 pixels of"
            " images that are much larger, so they are percentages; multiply them by width / 100"
            " and height / 100"
        )


def _check_corners(pairs: Sequence[tuple[AnnotatedImage, Thing]], *, masks: bool) -> None:
    """Compares boxes with their masks and areas, both as sizes and as corners."""
    compared, corners = 0, []
    with_mask, contrary = 0, []
    for image, thing in pairs[:: 1 + len(pairs) // _MOST_COMPARED]:
        if thing.voc_box is not None or thing.crowd:
            continue
        sides = image.height, image.width
        extent = box_of_mask(thing.mask, None if None in sides else sides)  # type: ignore[arg-type]
        other = _as_corners(thing.box)
        if extent is not None:
            compared += 1
            with_mask += 1
            if not _close(thing.box, extent) and _close(other, extent):
                corners.append(thing)
            if _iou(thing.box, extent) < _LEAST_IOU and (masks or _other_form(thing.box, extent)):
                contrary.append((thing, extent))
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
    if len(contrary) > max(1, with_mask / 2):
        thing, extent = contrary[0]
        cause = _other_form(thing.box, extent) or ("masks in relative numbers" * _is_unit(extent))
        raise ValueError(
            f"{thing.place}: its box {_text(thing.box)} and its mask, which spans {_text(extent)},"
            f" contradict each other, as do {len(contrary)} of {with_mask}"
            f"{f' ({cause}?)' if cause else ''}: correct one of them, or remove segmentation if the"
            " boxes are right"
        )


def _is_unit(box: Box) -> bool:
    return max(box) <= 1.01


def _other_form(box: Box, extent: Box) -> str:
    """The form in which a box would fit its mask; "" if there is none."""
    x0, y0, x1, y1 = box
    half_x, half_y = (x1 - x0) / 2, (y1 - y0) / 2
    if _close((x0 - half_x, y0 - half_y, x1 - half_x, y1 - half_y), extent):
        return "boxes with the centre instead of the upper left corner"
    return "x and y exchanged" if _close((y0, x0, y1, x1), extent) else ""


def _iou(a: Box, b: Box) -> float:
    shared_x, shared_y = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    shared = max(shared_x, 0.0) * max(shared_y, 0.0)
    area_a, area_b = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return shared / (area_a + area_b - shared)


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


def _text(box: Box) -> str:
    return f"({', '.join(f'{number:g}' for number in box)})"
