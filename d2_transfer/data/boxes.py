"""Boxes that can be used: clipped to their image, without the worthless ones."""

from __future__ import annotations

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.box_forms import check_meaning
from d2_transfer.data.findings import Findings
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.sizes import is_finite

# px: what six decimals of a side leave. So much is clipped without a word, and is no side of a box.
_ROUNDING = 0.01


def mend_boxes(data: AnnotatedData, findings: Findings, *, masks: bool = False) -> None:
    """Clips boxes to their image and drops the worthless ones, in place.

    Images of unknown size keep boxes that reach beyond them.

    Args:
        data: boxes in pixels; sizes are those that the boxes are in.
        findings: gets what is clipped and dropped.
        masks: whether masks are used, so that they have to agree with the boxes.

    Raises:
        ValueError: the boxes of the set mean something else than corners in pixels of their images,
            or most of them contradict their masks.
    """
    for image in data.images:
        _set_boxes(image, findings)
    check_meaning(data, masks=masks)
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


def _set_boxes(image: AnnotatedImage, findings: Findings) -> None:
    """Gives objects without a box that of what is good of their mask in the image, in place."""
    if image.width is None or image.height is None:
        return
    for thing in [thing for thing in image.things if thing.boxed_by_mask]:
        box = box_of_mask(thing.mask, (image.height, image.width))
        if box is None:
            findings.skip("annotation without a box", thing.place)
            image.things.remove(thing)
        else:
            thing.box = box


def _worthless(thing: Thing, image: AnnotatedImage) -> str:
    """Why a box cannot be used; "" if it can."""
    if not is_finite(thing.box):
        return "box that is not finite"
    x0, y0, x1, y1 = thing.box
    if thing.voc_box is not None and (x1 - x0 <= 1 or y1 - y0 <= 1) and _is_point(thing.voc_box):
        return "box of width or height 0"
    if x1 < x0 or y1 < y0:
        return "box of negative width or height"
    if x1 - x0 <= _ROUNDING or y1 - y0 <= _ROUNDING:
        return "box of width or height 0"
    if image.width is None or image.height is None:
        return ""
    beyond_x, beyond_y = x0 >= image.width - _ROUNDING, y0 >= image.height - _ROUNDING
    if x1 <= _ROUNDING or y1 <= _ROUNDING or beyond_x or beyond_y:
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
        if thing.area is not None:  # the file's is that of the whole object
            thing.area *= (box[2] - box[0]) * (box[3] - box[1]) / ((x1 - x0) * (y1 - y0))
    thing.box = box
    if thing.voc_box is not None:
        thing.voc_box = (box[0] + 1, box[1] + 1, box[2], box[3])
