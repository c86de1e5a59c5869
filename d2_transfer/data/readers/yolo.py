"""Annotations in YOLO form: a data.yaml, images, and one text file of labels for each image."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.masks import box_of_mask
from d2_transfer.data.readers.yolo_files import LabelIndex, label_files, split_images
from d2_transfer.data.readers.yolo_rows import Row, RowForm, split_row
from d2_transfer.data.readers.yolo_yaml import find_yaml, read_yaml
from d2_transfer.data.spec import YoloSpec
from d2_transfer.data.values import as_id, as_number, as_numbers, read_text


def read_yolo_data(spec: YoloSpec, findings: Findings) -> AnnotatedData:
    """Reads a split; boxes and polygons are relative to the sides of their images.

    A label file with polygons gives masks, with keypoints boxes. An image without a label file, or
    with an empty one, has no objects.

    Args:
        spec: the data.yaml, Darknet's obj.data or the folder that has one, and the split.
        findings: gets what is mended and skipped.

    Raises:
        FileNotFoundError: the data.yaml, or the images of the split, do not exist.
        ValueError: a file is malformed, or a label has a class without a name.
    """
    spec = replace(spec, yaml=find_yaml(spec.yaml))
    content = read_yaml(spec.yaml)
    names = _read_names(spec.yaml, content, findings)
    classes = _merge_names(spec.yaml, names, findings)
    index = LabelIndex()
    label = _Labels(classes, _has_keypoints(spec.yaml, content), findings)
    images: list[AnnotatedImage] = []
    used: set[str] = set()
    rows: list[Row] = []
    with_labels, first_missing = 0, None
    for file in split_images(spec, content, findings):
        if (key := os.path.abspath(file)) in used:
            findings.mend("image listed twice, used once", str(file))
            continue
        used.add(key)
        image = AnnotatedImage(id=file.stem, name=file.name, place=str(file), file=file)
        label_file = index.find(file)
        if label_file is None:
            first_missing = first_missing or file
        else:
            with_labels += 1
            rows += label.rows(label_file, image)
            image.place = str(label_file)
        images.append(image)
    if not images:
        raise FileNotFoundError(f"{spec.yaml}: the split {spec.split!r} has no images")
    if not with_labels:
        raise FileNotFoundError(
            f"{spec.yaml}: no image of the split {spec.split!r} has a label file; for"
            f" {first_missing} looked for {' and '.join(map(str, label_files(images[0].file)))}"
        )
    form = RowForm.of(rows)
    for row in rows:
        row.image.things += label.things(row, form)
    if not _has_lists(spec, content):
        for file in index.unused():
            findings.skip("label file without an image", str(file))
    _use_unique_ids(images)
    return AnnotatedData(
        images=images,
        classes=list(dict.fromkeys(classes.values())),
        category_ids=list(range(1, len(set(classes.values())) + 1)),
        protocol="coco",
        source=f"{spec.yaml} ({spec.split})",
        relative=True,
    )


def _use_unique_ids(images: Sequence[AnnotatedImage]) -> None:
    """Images of one name in several folders are named with their folders."""
    stems = [str(image.id) for image in images]
    if len(set(stems)) < len(stems):
        files = [os.path.abspath(image.file or "") for image in images]
        ids: set[str] = set()
        common = os.path.commonpath([os.path.dirname(file) for file in files])
        for image, file in zip(images, files, strict=True):
            relative = os.path.relpath(file, common)
            stem = os.path.splitext(relative)[0]
            image.id = relative if stem in ids else stem  # p0.jpg beside p0.png
            ids.add(stem)


def _read_names(file: Path, content: Mapping[str, Any], findings: Findings) -> dict[int, str]:
    """The name of each class number."""
    names, count = content.get("names"), as_id(content.get("nc"))
    if names is None:
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{file} has no names, and nc is {content.get('nc')!r}")
        findings.mend("classes without names, numbered", str(file))
        return {number: str(number) for number in range(count)}
    found = {}
    if isinstance(names, dict | list):
        for key, name in names.items() if isinstance(names, dict) else enumerate(names):
            number = as_id(key)
            if not isinstance(number, int) or not str(name).strip() or name is None:
                raise ValueError(f"{file}: names has the entry {key!r}: {name!r}")
            found[number] = unicodedata.normalize("NFC", str(name).strip())
    if not found:
        raise ValueError(f"{file}: names is {names!r}; it must be a list or a dictionary of names")
    if count is not None and count != len(found):
        findings.mend(f"nc {count} with {len(found)} names, the names count", str(file))
    return dict(sorted(found.items()))


def _merge_names(file: Path, names: Mapping[int, str], findings: Findings) -> dict[int, str]:
    """Names that are equal, or differ in case only, are one class."""
    first: dict[str, str] = {}
    merged = {}
    for number, name in names.items():
        merged[number] = first.setdefault(name.casefold(), name)
        if list(first.values())[-1] != name or number != _first_number(names, name):
            findings.mend(
                f"class of the same name as another, merged into {merged[number]!r}",
                f"{file}: class {number} {name}",
            )
    return merged


def _first_number(names: Mapping[int, str], name: str) -> int:
    return next(n for n, other in names.items() if other.casefold() == name.casefold())


def _has_keypoints(file: Path, content: Mapping[str, Any]) -> bool:
    """Whether labels have keypoints after the box."""
    shape = content.get("kpt_shape")
    if shape is None:
        return False
    numbers = as_numbers(shape)
    if numbers is None or len(numbers) != 2:
        raise ValueError(f"{file}: kpt_shape is {shape!r}; it must be two numbers")
    return True


def _has_lists(spec: YoloSpec, content: Mapping[str, Any]) -> bool:
    """Whether a split is a list of images, to which not all label files belong."""
    places = content.get(spec.split)
    names = places if isinstance(places, list) else [places]
    return any(str(name).lower().endswith(".txt") for name in names)


@dataclass
class _Labels:
    """Reads label files."""

    classes: Mapping[int, str]
    keypoints: bool
    findings: Findings

    def rows(self, file: Path, image: AnnotatedImage) -> Iterator[Row]:
        """The lines of a file, each once."""
        seen = set()
        for number, line in enumerate(read_text(file).lstrip("\ufeff").splitlines(), start=1):
            words = split_row(line)
            if not words:
                continue
            place = f"{file}: line {number}"
            if tuple(words) in seen:
                self.findings.mend("label twice in a file, used once", place)
                continue
            seen.add(tuple(words))
            label = as_id(words[0])
            if not isinstance(label, int) or label not in self.classes:
                raise ValueError(
                    f"{place} has the class {words[0]!r}; the data.yaml names"
                    f" {min(self.classes)} to {max(self.classes)}"
                )
            yield Row(image, label, words[1:], place)

    def things(self, row: Row, form: RowForm) -> Iterator[Thing]:
        """The object of a row, if it is one."""
        values = [as_number(word) for word in row.words]
        if len(values) < 4 or None in values:
            self.findings.skip("label that is neither a box nor a polygon", row.place)
            return
        numbers: list[float] = values  # type: ignore[assignment]
        name = self.classes[row.label]
        extra = "" if self.keypoints else form.after_box(numbers)
        if len(numbers) == 4 or self.keypoints or extra:
            if extra:
                self.findings.mend(f"{extra} after the box, ignored", row.place)
            x, y, width, height = numbers[:4]
            box: Box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            yield Thing(name, box, row.place)
            return
        if len(numbers) % 2 and form.polygons_have_confidence:
            self.findings.mend("confidence after the polygon, ignored", row.place)
            numbers.pop()
        if len(numbers) % 2:
            self.findings.skip("polygon with an odd number of coordinates", row.place)
            return
        extent = box_of_mask([numbers])
        if extent is None:
            self.findings.skip("polygon that is not finite", row.place)
            return
        yield Thing(name, extent, row.place, mask=[numbers])
