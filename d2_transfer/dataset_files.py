"""The files of custom data sets, in COCO or VOC form: loading, and checks that name the file."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def coco_classes(json_file: str) -> list[str]:
    """The names of the categories, in the order of their ids, which is that of Detectron2.

    Raises:
        ValueError: the file is no COCO annotation file.
    """
    categories = _read_coco(json_file)["categories"]
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
        ValueError: a key is missing.
    """
    content = _read_coco(json_file)
    if not content["images"]:
        raise ValueError(f"{json_file} lists no images")
    for image in content["images"]:
        if lacking := [key for key in ("id", "file_name", "height", "width") if key not in image]:
            raise ValueError(f"{json_file}: image {image.get('id')} lacks {', '.join(lacking)}")
        path = os.path.join(image_root, image["file_name"])
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}, listed in {json_file}, does not exist")
    categories = {category["id"] for category in content["categories"]}
    seen = set()
    needed = ["id", "image_id", "category_id", "bbox"]
    needed += ["segmentation"] if mask_format else []
    needed += ["area", "iscrowd"] if evaluate else []
    for annotation in content["annotations"]:
        if lacking := [key for key in needed if not _has(annotation, key)]:
            reason = " (MODEL.MASK_ON is True)" if lacking == ["segmentation"] else ""
            raise ValueError(
                f"{json_file}: annotation {annotation.get('id')} lacks {', '.join(lacking)}{reason}"
            )
        number = annotation["id"]
        if annotation["category_id"] not in categories:
            raise ValueError(
                f"{json_file}: annotation {number} has the category {annotation['category_id']},"
                " which the file does not define"
            )
        crowd = annotation.get("iscrowd", 0)  # not trained on
        if mask_format == "polygon" and not crowd and isinstance(annotation["segmentation"], dict):
            raise ValueError(
                f"{json_file}: the mask of annotation {number} is no polygon: set"
                " INPUT.MASK_FORMAT bitmask"
            )
        if number in seen:
            raise ValueError(f"{json_file}: the annotation id {number} occurs twice")
        seen.add(number)


def _has(annotation: dict[str, Any], key: str) -> bool:
    return key in annotation and annotation[key] not in (None, [], {})


def _read_coco(json_file: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    sections = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(s), list) for s in sections):
        raise ValueError(f"{json_file} is no COCO annotation file: it needs {', '.join(sections)}")
    return content


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
        size = {
            side: int(root_tag.findtext(f"size/{side}", default="")) for side in ("height", "width")
        }
        objects = []
        for thing in root_tag.iter("object"):
            name = thing.findtext("name", default="").strip()
            if name not in classes:
                raise ValueError(f"class {name!r} is not among {', '.join(classes)}")
            corners = ("xmin", "ymin", "xmax", "ymax")
            box = [float(thing.findtext(f"bndbox/{corner}", default="")) for corner in corners]
            # VOC counts pixels from 1 and includes the last: 1..W covers the image, here 0..W.
            objects.append(
                {
                    "category_id": classes.index(name),
                    "bbox": [box[0] - 1, box[1] - 1, box[2], box[3]],
                    "bbox_mode": BoxMode.XYXY_ABS,
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
