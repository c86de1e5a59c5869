"""The files of annotations in COCO form: where they are, and what they contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d2_transfer.data.large_json import parse_json, read_unpacked
from d2_transfer.data.other_formats import advice_for_folder, advice_for_json, advice_for_text

_SECTIONS = ("images", "annotations", "categories")


def annotation_file(path: Path) -> Path:
    """The file, or the one that Roboflow or CVAT has written in a folder."""
    if not path.is_dir():
        return path
    names = ("_annotations.coco.json", "annotations/instances_default.json")
    return next((path / name for name in names if (path / name).is_file()), path)


def coco_image_folder(json_file: Path) -> Path:
    """Where the images of a file are if nobody says it: beside it, or where the tools put them."""
    folder = json_file.parent
    if folder.name.lower() == "annotations":
        split = json_file.stem.removeprefix("instances_")
        places = [folder.parent / name for name in (f"images/{split}", "images", split)]
        return next((place for place in places if place.is_dir()), folder.parent)
    return folder


def parse_coco(json_file: Path) -> dict[str, Any]:
    """The content of a file in COCO form; "annotations" may be missing, as in COCO's test-dev.

    Annotations in other forms are recognised, and the message says how to convert them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO annotation file.
    """
    if json_file.is_dir():
        advice = advice_for_folder(json_file)
        raise ValueError(advice or f"{json_file} is a folder: give the file with the annotations")
    if not json_file.is_file():
        raise FileNotFoundError(f"{json_file}: no such file")
    raw = read_unpacked(json_file)
    if advice := advice_for_text(json_file, raw[:4096]):
        raise ValueError(advice)
    try:
        content = parse_json(raw)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{json_file} is not {error.encoding} text (byte {error.start}): save it in UTF-8"
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    if advice := advice_for_json(json_file, content):
        raise ValueError(advice)
    sections = content if isinstance(content, dict) else {}
    if sections.get("annotations", []) is None:
        del sections["annotations"]
    given = [section for section in _SECTIONS if section in sections]
    wrong = [s for s in given if not isinstance(sections[s], list)]
    if wrong or {"images", "categories"} - {*given}:
        raise ValueError(
            f"{json_file} is not a COCO annotation file: it needs {', '.join(_SECTIONS)}"
        )
    for section in given:
        if not all(isinstance(entry, dict) for entry in sections[section]):
            raise ValueError(f"{json_file}: an entry of {section} is not an object")
    return sections
