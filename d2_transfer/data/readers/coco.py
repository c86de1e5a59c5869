"""Annotations in COCO form, as COCO and many tools write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import folded_parts
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.readers.coco_files import annotation_file, coco_image_folder, parse_coco
from d2_transfer.data.spec import CocoSpec
from d2_transfer.data.values import as_flag, as_id, as_number, as_numbers, as_side, folded

# labelme's script writes the background as category 0.
_NO_CLASSES = {"_background_", "__background__", "__ignore__"}
# Where the file's name is; LVIS has URLs only.
_NAME_KEYS = ("file_name", "filename", "path", "coco_url")
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
    images, by_id = _read_images(json_file, content["images"], findings)
    by_number = _by_number(by_id)
    annotations = content.get("annotations", [])
    kept = []
    by_own_id: dict[Id, Mapping[str, Any]] = {}
    for number, annotation in enumerate(annotations):
        place = f"{json_file.name}: annotation {annotation.get('id', f'number {number}')}"
        own_id, image_id = as_id(annotation.get("id")), as_id(annotation.get("image_id"))
        same = annotation if own_id is None else by_own_id.setdefault(own_id, annotation)
        if same is not annotation and same == annotation:
            findings.mend("annotation listed twice, used once", place)
            continue
        image = by_id.get(image_id) or by_number.get(_number(image_id))  # type: ignore[arg-type]
        if image is not None:
            kept.append((image, annotation, place))
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
    return AnnotatedData(
        images=images,
        classes=list(ids),
        category_ids=list(ids.values()),
        protocol="coco",
        source=str(json_file),
        category_aliases={c: ids[name] for c, name in names.items() if ids[name] != c},
        image_root=spec.images or coco_image_folder(json_file),
    )


def _read_images(
    json_file: Path, entries: Iterable[Mapping[str, Any]], findings: Findings
) -> tuple[list[AnnotatedImage], dict[Id, AnnotatedImage]]:
    """The images, and each by its ids: two entries of one file are one image."""
    images: list[AnnotatedImage] = []
    by_id: dict[Id, AnnotatedImage] = {}
    by_name: dict[str, AnnotatedImage] = {}
    for number, entry in enumerate(entries):
        place = f"{json_file.name}: image {entry.get('id', f'number {number}')}"
        image_id = as_id(entry.get("id"))
        name = next((entry[key] for key in _NAME_KEYS if entry.get(key) not in (None, "")), None)
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
        else:
            images.append(image)
            if name:
                by_name[name] = image
        by_id[image_id] = known or image
    return images, by_id


def _by_number(images: Mapping[Id, AnnotatedImage]) -> dict[int, AnnotatedImage]:
    """The images by the numbers of ids such as "0012", where each number stands for one image."""
    found: dict[int, AnnotatedImage | None] = {}
    for image_id, image in images.items():
        number = _number(image_id)
        if number is not None:
            found[number] = image if found.setdefault(number, image) is image else None
    return {number: image for number, image in found.items() if image is not None}


def _number(image_id: Id | None) -> int | None:
    """The number that an id is, with zeros in front of it or without."""
    if isinstance(image_id, str):
        return int(image_id) if re.fullmatch(r"[0-9]{1,99}", image_id) else None
    return image_id


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
        if folded(names.get(category, name)) != folded(name):
            raise ValueError(
                f"{json_file}: the category id {category} stands for {names[category]!r} and"
                f" {name!r}"
            )
        names.setdefault(category, name)
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
        elif category not in used and folded(name) in _NO_CLASSES and len(names) > 1:
            findings.mend(
                "background category without annotations, dropped",
                f"{place}: category {category} {name}",
            )
            del names[category]
    kept: dict[str, Id] = {}
    by_folded: dict[str, str] = {}
    # Of two categories of one name, one with annotations gives the id.
    for category in sorted(names, key=lambda c: (c not in used, *_order(c))):
        name = names[category]
        first = by_folded.setdefault(folded(name), name)
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
        boxed_by_mask=annotation.get("bbox") in (None, []),
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
