"""Annotations in COCO form, as COCO and many tools write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.values import as_flag, as_id, as_number, as_numbers, as_side

_SECTIONS = ("images", "annotations", "categories")
Id = int | str


def read_coco_data(json_file: Path, findings: Findings) -> AnnotatedData:
    """Reads a file; boxes may still be empty or outside, and masks invalid.

    Args:
        json_file: UTF-8, UTF-16 or UTF-32, with a byte order mark or without.
        findings: gets what is mended and skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO annotation file, or it has more than one reading.
    """
    content = parse_coco(json_file)
    images, by_id = _read_images(json_file, content["images"], findings)
    annotations = content.get("annotations", [])
    kept = []
    for number, annotation in enumerate(annotations):
        place = f"{json_file.name}: annotation {annotation.get('id', f'number {number}')}"
        image_id = as_id(annotation.get("image_id"))
        if image_id in by_id:
            kept.append((by_id[image_id], annotation, place))
        else:
            findings.skip("annotation of an image that is not listed", place)
    if annotations and not kept:
        raise ValueError(f"{json_file}: no annotation has the image_id of an image that is listed")
    used = {as_id(annotation.get("category_id")) for annotation in annotations}
    names, ids = _read_categories(json_file, content["categories"], used, findings)
    for image, annotation, place in kept:
        category = as_id(annotation.get("category_id"))
        if category is None or category not in names:
            raise ValueError(
                f"{json_file}: {place.partition(': ')[2]} has the category_id"
                f" {annotation.get('category_id')!r}, which no category has"
            )
        thing = _read_thing(annotation, names[category], place, findings)
        if thing is not None:
            image.things.append(thing)
    return AnnotatedData(images, list(ids), list(ids.values()), "coco", str(json_file))


def parse_coco(json_file: Path) -> dict[str, Any]:
    """The content of a file in COCO form; "annotations" may be missing, as in COCO's test-dev.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO annotation file; other known formats are named.
    """
    if not json_file.is_file():
        raise FileNotFoundError(f"{json_file}: no such file")
    try:
        content = json.loads(json_file.read_bytes())  # finds the encoding itself
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    sections = content if isinstance(content, dict) else {}
    if "shapes" in sections and "imagePath" in sections:
        raise ValueError(f"{json_file} is a labelme file; convert the folder with labelme2coco")
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


def _read_images(
    json_file: Path, entries: Iterable[Mapping[str, Any]], findings: Findings
) -> tuple[list[AnnotatedImage], dict[Id, AnnotatedImage]]:
    """The images, and each by its ids: two entries of one file are one image."""
    by_id: dict[Id, AnnotatedImage] = {}
    by_name: dict[str, AnnotatedImage] = {}
    for number, entry in enumerate(entries):
        place = f"{json_file.name}: image {entry.get('id', f'number {number}')}"
        image_id, name = as_id(entry.get("id")), entry.get("file_name")
        if image_id is None:
            raise ValueError(f"{json_file}: image number {number} has the id {entry.get('id')!r}")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{json_file}: image {image_id} has the file_name {name!r}")
        known = by_id.get(image_id)
        if known is not None and known.name != name:
            raise ValueError(
                f"{json_file}: the image id {image_id} stands for two files, {known.name} and {name}"
            )
        if known is not None or name in by_name:
            findings.mend("image listed twice, its annotations united", place)
            by_id[image_id] = by_name[name]
            continue
        sides = as_side(entry.get("width")), as_side(entry.get("height"))
        by_id[image_id] = by_name[name] = AnnotatedImage(image_id, name, place, *sides)
    return list(by_name.values()), by_id


def _read_categories(
    json_file: Path,
    entries: Iterable[Mapping[str, Any]],
    used: set[Id | None],
    findings: Findings,
) -> tuple[dict[Id, str], dict[str, Id]]:
    """The class of each category id, and the id of each class, in the order of the ids."""
    names: dict[Id, str] = {}
    parents: dict[Id, str] = {}
    for number, entry in enumerate(entries):
        category, name = as_id(entry.get("id")), entry.get("name")
        if category is None or not isinstance(name, str | int | float) or not str(name).strip():
            raise ValueError(
                f"{json_file}: category number {number} has the id {entry.get('id')!r} and the name"
                f" {name!r}"
            )
        name = str(name).strip()
        if names.get(category, name) != name:
            raise ValueError(
                f"{json_file}: the category id {category} stands for {names[category]!r} and"
                f" {name!r}"
            )
        names[category] = name
        parents[category] = str(entry.get("supercategory", ""))
    if not names:
        raise ValueError(f"{json_file} has no categories")
    place = json_file.name
    for category, name in list(names.items()):
        others = [parents[other] for other in names if other != category]
        if category not in used and others and all(parent == name for parent in others):
            findings.mend(
                "root category without annotations, dropped", f"{place}: category {category} {name}"
            )
            del names[category]
    kept: dict[str, Id] = {}
    by_folded: dict[str, str] = {}
    # Of two categories of one name, one with annotations gives the id.
    for category in sorted(names, key=lambda c: (c not in used, *_order(c))):
        name = names[category]
        first = by_folded.setdefault(name.casefold(), name)
        if first in kept:
            findings.mend(
                f"category of the same name as another, merged into {first!r}",
                f"{place}: category {category} {name}",
            )
        else:
            kept[first] = category
        names[category] = first
    return names, dict(sorted(kept.items(), key=lambda item: _order(item[1])))


def _order(category: Id) -> tuple[bool, Id]:
    return isinstance(category, str), category  # numbers first


def _read_thing(
    annotation: Mapping[str, Any], label: str, place: str, findings: Findings
) -> Thing | None:
    """An object, or None where it has no box."""
    crowd = as_flag(annotation.get("iscrowd"))
    if crowd is None:
        raise ValueError(f"{place} has the iscrowd {annotation['iscrowd']!r}; it must be 0 or 1")
    mask = annotation.get("segmentation") or None
    box = _read_box(annotation.get("bbox"), mask, place, findings)
    if box is None:
        return None
    area = as_number(annotation.get("area"))
    return Thing(
        label=label,
        box=box,
        place=place,
        crowd=crowd,
        mask=mask,
        area=area if area is not None and 0 < area < float("inf") else None,
    )


def _read_box(value: Any, mask: Any, place: str, findings: Findings) -> Box | None:
    if value in (None, []):
        box = box_of_mask(mask)
        if box is None:
            findings.skip("annotation without a box", place)
        else:
            findings.mend("no box: that of the mask", place)
        return box
    numbers = as_numbers(value)
    if numbers is None or len(numbers) != 4:
        findings.skip("box that is not four numbers", place)
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height
