"""Annotations in COCO form, as COCO and many tools write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import folded_parts
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.other_formats import advice_for_folder, advice_for_json, advice_for_text
from d2_transfer.data.spec import CocoSpec
from d2_transfer.data.values import as_flag, as_id, as_number, as_numbers, as_side

_SECTIONS = ("images", "annotations", "categories")
Id = int | str


def read_coco_data(spec: CocoSpec, findings: Findings) -> AnnotatedData:
    """Reads a file; boxes may still be empty or outside, and masks invalid.

    Args:
        spec: a file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.
        findings: gets what is mended and skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO annotation file, or it has more than one reading.
    """
    json_file = annotation_file(spec.json_file)
    content = parse_coco(json_file)
    images, by_id, united = _read_images(json_file, content["images"], findings)
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
    for image in united:
        image.drop_equal()
    return AnnotatedData(
        images=images,
        classes=list(ids),
        category_ids=list(ids.values()),
        protocol="coco",
        source=str(json_file),
        category_aliases={c: ids[name] for c, name in names.items() if ids[name] != c},
        image_root=spec.images or coco_image_folder(json_file),
    )


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
    if json_file.is_dir() and (advice := advice_for_folder(json_file)):
        raise ValueError(advice)
    if not json_file.is_file():
        raise FileNotFoundError(f"{json_file}: no such file")
    raw = json_file.read_bytes()
    if advice := advice_for_text(json_file, raw[:4096]):
        raise ValueError(advice)
    try:
        content = json.loads(raw)  # finds the encoding itself
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    if advice := advice_for_json(json_file, content):
        raise ValueError(advice)
    sections = content if isinstance(content, dict) else {}
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
) -> tuple[list[AnnotatedImage], dict[Id, AnnotatedImage], list[AnnotatedImage]]:
    """The images; each by its ids: two entries of one file are one image; and those of several."""
    united: list[AnnotatedImage] = []
    images: list[AnnotatedImage] = []
    by_id: dict[Id, AnnotatedImage] = {}
    by_name: dict[str, AnnotatedImage] = {}
    for number, entry in enumerate(entries):
        place = f"{json_file.name}: image {entry.get('id', f'number {number}')}"
        image_id, name = as_id(entry.get("id")), entry.get("file_name")
        if image_id is None:
            raise ValueError(f"{json_file}: image number {number} has the id {entry.get('id')!r}")
        if name is None:
            name = ""  # scoring needs none; `find_images` does
        if not isinstance(name, str):
            raise ValueError(f"{json_file}: image {image_id} has the file_name {name!r}")
        known = by_id.get(image_id)
        if known is not None and folded_parts(known.name) != folded_parts(name):
            raise ValueError(
                f"{json_file}: the image id {image_id} stands for two files, {known.name} and"
                f" {name}"
            )
        sides = as_side(entry.get("width")), as_side(entry.get("height"))
        image = AnnotatedImage(image_id, name, place, *sides)
        known = known or by_name.get(name)
        if known is not None:
            findings.mend("image listed twice, its annotations united", place)
            known.unite(image)
            united.append(known)
        else:
            images.append(image)
            if name:
                by_name[name] = image
        by_id[image_id] = known or image
    return images, by_id, united


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
        if category not in used and name in others:
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
