"""Annotations in PASCAL VOC form: loading, and checks that name the file."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cwrgp.images import IMAGE_SUFFIXES

# The value of detectron2.structures.BoxMode.XYXY_ABS: this module works without Detectron2.
_XYXY_ABS = 0
_CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_OBJECT_TAGS = ("name", "pose", "truncated", "difficult", *_CORNERS)


def voc_folders(root: str) -> list[str]:
    """The folders of a data set in VOC form."""
    return [
        os.path.join(root, *f) for f in (("ImageSets", "Main"), ("Annotations",), ("JPEGImages",))
    ]


def load_voc(root: str, split: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Loads one split of a data set in VOC form as Detectron2's records.

    Unlike Detectron2's own loader, it accepts every suffix in `IMAGE_SUFFIXES` and splits of one
    image, and its errors name the file. "Difficult" objects are used for training, as in
    Detectron2.

    Args:
        root: folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        split: name of a list in ``ImageSets/Main``, without ``.txt``.
        classes: names of the classes, in the model's order.

    Returns:
        One record per image. Boxes are (x0, y0, x1, y1) in pixels, with VOC's first pixel, 1, at 0.

    Raises:
        FileNotFoundError: the list, an annotation or an image is missing.
        ValueError: an annotation is malformed or has a class that is not in ``classes``.
    """
    return [_voc_record(root, image_id, list(classes)) for image_id in _voc_ids(root, split)]


def check_voc_for_evaluation(root: str, split: str) -> None:
    """Checks that every object has what Detectron2's VOC evaluation assumes.

    Raises:
        ValueError: an object lacks a tag, or its box is not made of integers.
    """
    for image_id in _voc_ids(root, split):
        path = os.path.join(root, "Annotations", f"{image_id}.xml")
        for number, thing in enumerate(_parse(path).objects, start=1):
            for tag in ("truncated", "difficult", *_CORNERS):
                text = thing[tag] or ""
                if not text.lstrip("-").isdigit():
                    raise ValueError(
                        f"{path}: the VOC evaluation needs an integer in <{tag}>, object {number}"
                        f" has {text!r}"
                    )
            if thing["pose"] is None:
                raise ValueError(
                    f"{path}: the VOC evaluation needs <pose>, object {number} has none"
                )


@dataclass(frozen=True)
class VocObject:
    """An object of an annotation file.

    Attributes:
        name: of its class.
        box: x0, y0, x1, y1 as in the file: pixels are counted from 1 and x1, y1 are included.
        difficult: whether VOC's metric ignores it.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def load_voc_objects(root: str, split: str) -> dict[str, list[VocObject]]:
    """The objects of each image of a split; no image is needed.

    Args:
        root: folder with ``Annotations`` and ``ImageSets/Main``.
        split: name of a list in ``ImageSets/Main``, without ``.txt``.

    Raises:
        FileNotFoundError: the list or an annotation is missing.
        ValueError: an annotation is malformed.
    """
    found = {}
    for image_id in _voc_ids(root, split):
        path = os.path.join(root, "Annotations", f"{image_id}.xml")
        objects = []
        for thing in _parse(path).objects:
            try:
                name, box = _required(thing, "name", "object"), _box(thing)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            objects.append(VocObject(name, box, thing["difficult"] == "1"))
        found[image_id] = objects
    return found


def _voc_ids(root: str, split: str) -> list[str]:
    path = Path(root, "ImageSets", "Main", f"{split}.txt")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    ids = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not ids:
        raise ValueError(f"{path} lists no images")
    if not all(ids):
        raise ValueError(f"{path}: line {ids.index('') + 1} is empty")
    return ids


def _voc_record(root: str, image_id: str, classes: list[str]) -> dict[str, Any]:
    path = os.path.join(root, "Annotations", f"{image_id}.xml")
    annotation = _parse(path)
    try:
        size = {
            side: int(_required(annotation.size, f"size/{side}", annotation.root))
            for side in ("height", "width")
        }
        objects = []
        for thing in annotation.objects:
            name = thing["name"] or ""
            if name not in classes:
                raise ValueError(f"class {name!r} is not among {', '.join(classes)}")
            box = _box(thing)
            # VOC counts pixels from 1 and includes the last: 1..W covers the image, here 0..W.
            objects.append(
                {
                    "category_id": classes.index(name),
                    "bbox": [box[0] - 1, box[1] - 1, box[2], box[3]],
                    "bbox_mode": _XYXY_ABS,
                }
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {
        "file_name": _voc_image(root, image_id),
        "image_id": image_id,
        **size,
        "annotations": objects,
    }


def _box(thing: Mapping[str, str | None]) -> tuple[float, float, float, float]:
    """The corners of an object as the file has them.

    Raises:
        ValueError: a corner is missing or no number, or the box is empty.
    """
    x0, y0, x1, y1 = (float(_required(thing, corner, "object")) for corner in _CORNERS)
    if not (x0 <= x1 and y0 <= y1):  # nor where one is nan
        raise ValueError(f"the box {[x0, y0, x1, y1]} of {thing['name']!r} is empty")
    return x0, y0, x1, y1


def _required(texts: Mapping[str, str | None], tag: str, parent: str) -> str:
    text = texts[tag]
    if not text:
        raise ValueError(f"<{parent}> lacks {tag}")
    return text


def _voc_image(root: str, image_id: str) -> str:
    base = os.path.join(root, "JPEGImages", image_id)
    for suffix in IMAGE_SUFFIXES:
        if os.path.isfile(base + suffix):
            return base + suffix
    raise FileNotFoundError(f"{base}{'|'.join(IMAGE_SUFFIXES)} does not exist")


@dataclass(frozen=True)
class _Annotation:
    """The texts of an annotation file that are used; None for a tag that is missing."""

    root: str
    size: dict[str, str | None]
    objects: list[dict[str, str | None]]


def _parse(path: str) -> _Annotation:
    """Reads a file once as long as it does not change; the result is not to be modified."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist")
    state = os.stat(path)
    return _parse_once(path, state.st_mtime_ns, state.st_size)


@cache
def _parse_once(path: str, _mtime: int, _size: int) -> _Annotation:
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path} is not valid XML: {error}") from error
    objects = [_texts(thing, _OBJECT_TAGS) for thing in root.iter("object")]
    return _Annotation(root.tag, _texts(root, ("size/height", "size/width")), objects)


def _texts(tag: ET.Element, paths: Sequence[str]) -> dict[str, str | None]:
    found = {path: tag.findtext(path) for path in paths}
    return {path: None if text is None else text.strip() for path, text in found.items()}
