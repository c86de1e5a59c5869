"""Annotations in forms that are not read: which one it is, and how to convert it."""

from __future__ import annotations

import codecs
import csv
from pathlib import Path
from typing import Any

_INSTANCES = "give the file with images, annotations and categories, such as COCO's instances_*"
_READ = "COCO JSON, VOC XML and YOLO are read"


def advice_for_text(file: Path, start: bytes) -> str:
    """What a file that is no JSON is; "" where it may be JSON.

    Args:
        file: for the message.
        start: its first bytes.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = start[: len(start) // 2 * 2].decode("utf-16", errors="replace")
    else:
        text = start.decode("utf-8-sig", errors="replace")
    text = text.lstrip("\ufeff\0 \r\n\t")
    if text.startswith("version https://git-lfs"):
        return f"{file} is a Git LFS pointer, not the file: run git lfs pull"
    if text.startswith("PK\3\4"):
        return f"{file} is a zip archive: unpack it"
    if text[:20].lower().startswith(("<!doctype html", "<html")):
        return f"{file} is an HTML page, not annotations: download it again"
    if text.startswith("<"):
        if "<annotations" in text:
            return _cvat(file)
        if "<annotation" in text:
            return f"{file} is in VOC form: give voc:FOLDER:SPLIT or 'FORMAT': 'voc'"
        return f"{file} is XML, not a COCO annotation file; {_READ}"
    if file.suffix.lower() in (".csv", ".tsv") or _is_table(text):
        return (
            f"{file} is a CSV table, whose columns have no fixed meaning; convert it to COCO JSON,"
            " for example by importing it into Roboflow or FiftyOne and exporting COCO"
        )
    return ""


def _is_table(text: str) -> bool:
    """Whether all whole lines have the same number of fields, four or more."""
    if not text or text[0] in "{[":
        return False
    rows = list(csv.reader(text.splitlines()[:20]))[:-1] or list(csv.reader(text.splitlines()))
    return len(rows[0]) >= 4 and len({len(row) for row in rows if row}) == 1


def advice_for_json(file: Path, content: Any) -> str:
    """What JSON is that is not in COCO form; "" where it is none of the known forms."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if {"image_id", "score"} <= first.keys():
            return f"{file} is a list of results, not of annotations"
        if "image_id" in first:
            return f"{file} is a list of annotations without images and categories; {_INSTANCES}"
        if "annotations" in first and "data" in first:
            return f"{file} is a Label Studio file; export from Label Studio as COCO"
        if "annotations" in first and "image" in first:
            return f"{file} is a CreateML file; export COCO JSON instead"
        return ""
    if not isinstance(content, dict):
        return ""
    if "shapes" in content and ({"imagePath", "imageData", "flags"} & content.keys()):
        return f"{file} is a labelme file; convert the folder with labelme2coco to COCO JSON"
    if isinstance(content.get("items"), list) and isinstance(content.get("categories"), dict):
        return f"{file} is a Datumaro file; convert it with datum convert -f coco_instances"
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else {}
    if isinstance(first, dict) and "segments_info" in first:
        return f"{file} has panoptic segments, not objects; {_INSTANCES}"
    if isinstance(first, dict) and "caption" in first and "category_id" not in first:
        return f"{file} has captions, not objects; {_INSTANCES}"
    entry = next(iter(content.values()), None)
    if "_via_img_metadata" in content or (isinstance(entry, dict) and "regions" in entry):
        return f"{file} is a file of the VGG Image Annotator; export from it as COCO"
    return ""


def advice_for_xml(file: Path, tag: str) -> str:
    """What XML is that is not in VOC form, by its outermost tag; "" where it is not known."""
    return _cvat(file) if tag == "annotations" else ""


def advice_for_folder(folder: Path) -> str:
    """What a folder of annotations in another form is; "" where it is none of the known forms."""
    for pattern, kind in (("*.json", "json"), ("data.yaml", "yolo"), ("*.csv", "csv")):
        file = next(iter(sorted(folder.glob(pattern))), None)
        if file is None:
            continue
        if kind == "json":
            start = file.read_bytes()
            if b'"shapes"' in start:
                return f"{folder} has labelme files ({file.name}); convert it with labelme2coco"
            if b'"annotations"' in start:
                return f"{folder} is in COCO form: give coco:{file} or 'FORMAT': 'coco'"
        if kind == "yolo":
            return f"{folder} is in YOLO form: give yolo:{file}:SPLIT or 'FORMAT': 'yolo'"
        if kind == "csv":
            return advice_for_text(file, b"")
    return ""


def _cvat(file: Path) -> str:
    return f"{file} is a CVAT XML file; export from CVAT as COCO 1.0, or convert it with Datumaro"
