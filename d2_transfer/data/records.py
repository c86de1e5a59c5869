"""Annotated images as the records of Detectron2's ``DatasetCatalog``."""

from __future__ import annotations

from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Thing

# The value of detectron2.structures.BoxMode.XYXY_ABS: this module works without Detectron2.
_XYXY_ABS = 0

# Of a record: False where the EXIF orientation is not to be applied.
TURNED = "turned"


def as_records(data: AnnotatedData, *, masks: bool) -> list[dict[str, Any]]:
    """One record for each image; difficult objects are trained on, as in Detectron2.

    Args:
        data: with the files and sizes of the images, boxes in pixels.
        masks: whether annotations have ``segmentation``, where the object has a mask.
    """
    numbers = {name: number for number, name in enumerate(data.classes)}
    return [_record(image, numbers, masks) for image in data.images]


def _record(image: AnnotatedImage, numbers: dict[str, int], masks: bool) -> dict[str, Any]:
    assert image.file is not None and image.height is not None and image.width is not None
    record: dict[str, Any] = {
        "file_name": str(image.file),
        "image_id": image.id,
        "height": round(image.height),
        "width": round(image.width),
        "annotations": [_annotation(thing, numbers, masks) for thing in image.things],
    }
    if not image.turned:
        record[TURNED] = False
    return record


def _annotation(thing: Thing, numbers: dict[str, int], masks: bool) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        "category_id": numbers[thing.label],
        "bbox": list(thing.box),
        "bbox_mode": _XYXY_ABS,
    }
    if thing.crowd:
        annotation["iscrowd"] = 1
    if masks and thing.mask is not None:
        annotation["segmentation"] = thing.mask
    return annotation
