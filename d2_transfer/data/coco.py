"""Annotations in COCO form: loading, and checks that name the file."""

from __future__ import annotations

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any


class MaskError(ValueError):
    """An annotation has no mask, or one that the mask format does not accept."""


def coco_classes(json_file: str) -> list[str]:
    """The names of the categories, in the order of their ids, which is that of Detectron2.

    Raises:
        ValueError: the file is not a COCO annotation file.
    """
    categories = read_coco(json_file)["categories"]
    return [category["name"] for category in sorted(categories, key=lambda c: c["id"])]


def check_coco(json_file: str, image_root: str, mask_format: str | None, evaluate: bool) -> None:
    """Checks that the images exist and the annotations have what Detectron2 and COCO's API need.

    Args:
        json_file: a COCO annotation file of instances.
        image_root: folder of the images.
        mask_format: in which every annotation needs a ``segmentation``: ``"polygon"``,
            ``"bitmask"`` (polygons or RLE), or None.
        evaluate: whether they need ``area`` and ``iscrowd``, which AP is computed with.

    Raises:
        FileNotFoundError: an image is missing.
        MaskError: a mask is missing, or is not a polygon where ``mask_format`` asks for one.
        ValueError: another fault of the file, with the number of the entry.
    """
    content = read_coco(json_file)
    if not content["images"]:
        raise ValueError(f"{json_file} lists no images")
    if not content["annotations"]:
        raise ValueError(f"{json_file} has no annotations")
    sizes = _check_images(json_file, content["images"], image_root)
    categories = {category["id"] for category in content["categories"]}
    needed = ["id", "image_id", "category_id", "bbox"]
    needed += ["segmentation"] if mask_format else []
    needed += ["area", "iscrowd"] if evaluate else []
    seen = set()
    for annotation in content["annotations"]:
        number = annotation.get("id")
        if not isinstance(number, int | None):
            raise ValueError(f"{json_file}: the annotation id {number!r} is not an integer")
        where = f"{json_file}: annotation {number}"
        if lacking := [key for key in needed if not _has(annotation, key)]:
            kind = MaskError if lacking == ["segmentation"] else ValueError
            raise kind(f"{where} lacks {', '.join(lacking)}")
        _check_annotation(where, annotation, sizes, categories, mask_format, evaluate)
        if number in seen:
            raise ValueError(f"{json_file}: the annotation id {number} occurs twice")
        seen.add(number)


def _check_images(
    json_file: str, images: list[dict[str, Any]], image_root: str
) -> dict[Any, list[int]]:
    """Checks the entries and that their files exist. Returns id -> [height, width]."""
    sizes: dict[Any, list[int]] = {}
    for image in images:
        number = image.get("id")
        if not isinstance(number, int | str | None):
            raise ValueError(f"{json_file}: the image id {number} is not a number")
        if lacking := [key for key in ("id", "file_name", "height", "width") if key not in image]:
            raise ValueError(f"{json_file}: image {number} lacks {', '.join(lacking)}")
        if number in sizes:
            raise ValueError(f"{json_file}: the image id {number} occurs twice")
        if not all(isinstance(image[key], int) and image[key] > 0 for key in ("height", "width")):
            size = f"{image['width']!r} x {image['height']!r}"
            raise ValueError(f"{json_file}: image {number} has the size {size}")
        sizes[number] = [image["height"], image["width"]]
        path = os.path.join(image_root, str(image["file_name"]))
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}, listed in {json_file}, does not exist")
    return sizes


def _check_annotation(
    where: str,
    annotation: dict[str, Any],
    sizes: dict[Any, list[int]],
    categories: set[int],
    mask_format: str | None,
    evaluate: bool,
) -> None:
    """Checks the values of an annotation that lacks none."""
    for key, known in (("image_id", sizes), ("category_id", categories)):
        if not isinstance(annotation[key], int | str) or annotation[key] not in known:
            raise ValueError(f"{where} has the {key} {annotation[key]}, which is not defined")
    box = annotation["bbox"]
    if not is_numbers(box) or len(box) != 4 or min(box[2:]) <= 0:
        raise ValueError(f"{where} has the bbox {box}; it must be x, y, width, height")
    if evaluate and not is_numbers([annotation["area"], annotation["iscrowd"]]):
        raise ValueError(f"{where}: area and iscrowd must be numbers")
    if mask_format and not annotation.get("iscrowd", 0):  # crowds are not trained on
        check_mask(where, annotation["segmentation"], mask_format, sizes[annotation["image_id"]])


def check_mask(where: str, mask: Any, mask_format: str, size: list[Any]) -> None:
    """Checks the ``segmentation`` of an object.

    Args:
        where: what it belongs to, for the message.
        mask: the value.
        mask_format: "polygon" or "bitmask", as for `check_coco`.
        size: height and width of the image.

    Raises:
        MaskError: not a polygon where only those are accepted.
        ValueError: neither polygons nor an RLE of this size.
    """
    if isinstance(mask, dict):
        if mask_format == "polygon":
            raise MaskError(f"{where}: its mask is not a polygon")
        if not isinstance(mask.get("counts"), str | list) or mask.get("size") != size:
            raise ValueError(f"{where}: its mask must be an RLE with counts and the size {size}")
        return
    polygons = mask if isinstance(mask, list) else [mask]
    if not polygons or not all(is_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        raise ValueError(
            f"{where}: its mask must be an RLE or polygons of three points or more,"
            " [[x, y, x, y, x, y, ...], ...]"
        )


def is_numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers."""
    return isinstance(value, list) and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _has(annotation: dict[str, Any], key: str) -> bool:
    return key in annotation and annotation[key] not in (None, [], {})


def forget_annotations() -> None:
    """Frees the annotations that `coco_classes` and `check_coco` have read."""
    _parse.cache_clear()


def read_coco(json_file: str, *, unlabelled: bool = False) -> dict[str, Any]:
    """The content of an annotation file, parsed once as long as the file does not change.

    Args:
        json_file: the file.
        unlabelled: also accept a file without the section of annotations, such as COCO's test-dev.

    Returns:
        Images, annotations and categories, not to be modified.

    Raises:
        ValueError: the file is not a COCO annotation file.
    """
    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"{json_file}: no such file")
    state = os.stat(json_file)
    content = _parse(json_file, state.st_mtime_ns, state.st_size)
    if "annotations" not in content and not unlabelled:
        raise ValueError(f"{json_file} has no annotations")
    return content


@cache
def _parse(json_file: str, _mtime: int, _size: int) -> dict[str, Any]:
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    sections = ("images", "annotations", "categories")
    given = [s for s in sections if isinstance(content, dict) and s in content]
    # `read_coco` decides whether annotations are needed.
    if {"images", "categories"} - {*given} or not all(isinstance(content[s], list) for s in given):
        raise ValueError(
            f"{json_file} is not a COCO annotation file: it needs {', '.join(sections)}"
        )
    for section in given:
        if not all(isinstance(entry, dict) for entry in content[section]):
            raise ValueError(f"{json_file}: an entry of {section} is not an object")
    categories = content["categories"]
    if not all(isinstance(c.get("id"), int) and isinstance(c.get("name"), str) for c in categories):
        raise ValueError(f"{json_file}: a category lacks an integer id or a name")
    if len({category["id"] for category in categories}) < len(categories):
        raise ValueError(f"{json_file}: a category id occurs twice")
    if len({category["name"] for category in categories}) < len(categories):
        raise ValueError(f"{json_file}: two categories have the same name")
    return content
