"""Annotations in PASCAL VOC form: loading, and checks that name the file."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The value of detectron2.structures.BoxMode.XYXY_ABS: this module works without Detectron2.
_XYXY_ABS = 0
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def voc_folders(root: str) -> list[str]:
    """The folders of a data set in VOC form."""
    return [
        os.path.join(root, *f) for f in (("ImageSets", "Main"), ("Annotations",), ("JPEGImages",))
    ]


def load_voc(root: str, split: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Loads one split of a data set in VOC form as Detectron2's records.

    Unlike Detectron2's own loader, it takes PNG images and splits of one image, and says in which
    file a mistake is. "Difficult" objects are kept for training, as there.

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
    """Checks what Detectron2's VOC evaluation takes for granted of every object.

    Raises:
        ValueError: an object lacks a tag, or its box is not made of integers.
    """
    for image_id in _voc_ids(root, split):
        path = os.path.join(root, "Annotations", f"{image_id}.xml")
        for number, thing in enumerate(_parse_xml(path).iter("object"), start=1):
            tags = ["bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax"]
            for tag in ["truncated", "difficult", *tags]:
                text = thing.findtext(tag, default="").strip()
                if not text.lstrip("-").isdigit():
                    raise ValueError(
                        f"{path}: the VOC evaluation needs an integer in <{tag}>, object {number}"
                        f" has {text!r}"
                    )
            if thing.find("pose") is None:
                raise ValueError(
                    f"{path}: the VOC evaluation needs <pose>, object {number} has none"
                )


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
    root_tag = _parse_xml(path)
    try:
        size = {side: int(_text(root_tag, f"size/{side}")) for side in ("height", "width")}
        objects = []
        for thing in root_tag.iter("object"):
            name = thing.findtext("name", default="").strip()
            if name not in classes:
                raise ValueError(f"class {name!r} is not among {', '.join(classes)}")
            corners = ("xmin", "ymin", "xmax", "ymax")
            box = [float(_text(thing, f"bndbox/{corner}")) for corner in corners]
            if not (box[0] <= box[2] and box[1] <= box[3]):
                raise ValueError(f"the box {box} of {name!r} is empty")
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


def _text(tag: ET.Element, path: str) -> str:
    text = tag.findtext(path, default="").strip()
    if not text:
        raise ValueError(f"<{tag.tag}> lacks {path}")
    return text


def _voc_image(root: str, image_id: str) -> str:
    base = os.path.join(root, "JPEGImages", image_id)
    for suffix in _IMAGE_SUFFIXES:
        if os.path.isfile(base + suffix):
            return base + suffix
    raise FileNotFoundError(f"{base}{'|'.join(_IMAGE_SUFFIXES)} does not exist")


def _parse_xml(path: str) -> ET.Element:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path} is not valid XML: {error}") from error
