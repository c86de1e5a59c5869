"""Annotations in PASCAL VOC form, as VOC, labelImg and other tools write them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex, is_image_name
from d2_transfer.data.other_formats import advice_for_folder, advice_for_xml
from d2_transfer.data.spec import VOC_CLASSES, VocSpec
from d2_transfer.data.values import as_flag, as_number, as_side, read_text

_LISTS = ("ImageSets/Main", "ImageSets", ".")
_ANNOTATIONS = ("Annotations", "annotations", ".")
_IMAGES = ("JPEGImages", "images", "Images", ".")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("-1", "0", "1")
ALL = "all"  # the split of a folder without lists


def read_voc_data(spec: VocSpec, findings: Findings) -> AnnotatedData:
    """Reads a split; boxes may still be outside their image.

    Args:
        spec: the folder and the name of the list. Without lists, as labelImg leaves its folders,
            the split ``all`` has every annotation file.
        findings: gets what is mended and skipped.

    Raises:
        FileNotFoundError: the list does not exist, or none of its annotations.
        ValueError: a file is malformed, or an object is of a class that ``spec.classes`` lacks.
    """
    if not spec.root.is_dir():
        raise FileNotFoundError(f"{spec.root}: no such folder")
    folder = _first_folder(spec.root, _ANNOTATIONS)
    index = FileIndex(folder, lambda name: name.lower().endswith(".xml"))
    images: dict[str, AnnotatedImage] = {}
    names = _image_names(spec, index)
    for name, file in names:
        if file is None:
            findings.skip("image without an annotation file", str(folder / f"{name}.xml"))
        elif name in images:
            findings.mend("image listed twice, used once", name)
        else:
            images[name] = _read_image(file, name, findings)
    if not images:
        raise FileNotFoundError(
            f"{folder}: none of the {len(names)} annotation files exists, such as {names[0][0]}.xml"
        )
    classes = _settle_classes(spec, list(images.values()), findings)
    return AnnotatedData(
        images=list(images.values()),
        classes=classes,
        category_ids=list(range(1, len(classes) + 1)),
        protocol="voc07" if spec.is_2007 else "voc10",
        source=f"{spec.root} ({spec.split})",
        image_root=voc_image_folder(spec.root),
    )


def voc_image_folder(root: Path) -> Path:
    """The folder of the images of a data set in VOC form."""
    return _first_folder(root, _IMAGES)


def _first_folder(root: Path, names: Sequence[str]) -> Path:
    return next(root / name for name in names if (root / name).is_dir() or name == ".")


def _image_names(spec: VocSpec, index: FileIndex) -> list[tuple[str, Path | None]]:
    """The images of a split, named as in its list without suffix, and their annotation files."""
    lists = [spec.root / folder / f"{spec.split}.txt" for folder in _LISTS]
    file = next((file for file in lists if file.is_file()), None)
    if file is None:
        if not (files := index.files):
            advice = advice_for_folder(spec.root)
            raise ValueError(advice or f"{index.root} has no annotation files (*.xml)")
        if spec.split != ALL:
            raise FileNotFoundError(
                f"{lists[0]} does not exist; the split {ALL!r} has all annotation files"
            )
        return [(str(name.with_suffix("")), index.root / name) for name in files]
    lines = [line.strip() for line in read_text(file).lstrip("\ufeff").splitlines()]
    names = [_find_in_list(line, index) for line in lines if line]
    if not names:
        raise ValueError(f"{file} lists no images")
    return names


def _find_in_list(line: str, index: FileIndex) -> tuple[str, Path | None]:
    """The image of a line such as "name", "name -1", "name.jpg" or "images/name.jpg"."""
    exact = index.root / f"{line}.xml"
    if exact.is_file():
        return line, exact
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in _FLAGS:
        line = words[0]
    path = PurePosixPath(line.replace("\\", "/"))
    if path.suffix.lower() == ".xml" or is_image_name(path.name):
        path = path.with_suffix("")
    for name in (str(path), path.name):
        if (index.root / f"{name}.xml").is_file():
            return name, index.root / f"{name}.xml"
    match = index.find(f"{path}.xml")
    if match is None or match.weak:
        return path.name, None
    return match.file.stem, match.file


def _read_image(file: Path, name: str, findings: Findings) -> AnnotatedImage:
    try:
        # A declaration of the encoding does not count in a text, which is decoded already.
        root = ET.fromstring(read_text(file).lstrip("\ufeff \r\n\t"))
    except ET.ParseError as error:
        raise ValueError(f"{file} is not valid XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(
            advice_for_xml(file, root.tag) or f"{file} is not in VOC form: it begins <{root.tag}>"
        )
    image = AnnotatedImage(
        id=name,
        name=name,
        other_name=(root.findtext("filename") or "").strip(),
        place=str(file),
        width=as_side(root.findtext("size/width")),
        height=as_side(root.findtext("size/height")),
    )
    image.things = list(_read_things(file, root, findings))
    return image


def _read_things(file: Path, root: ET.Element, findings: Findings) -> Iterator[Thing]:
    for number, element in enumerate(root.findall("object"), start=1):
        place = f"{file}: object {number}"
        label = (element.findtext("name") or "").strip()
        if not label:
            raise ValueError(f"{place} has no <name>")
        difficult = as_flag((element.findtext("difficult") or "").strip())
        if difficult is None:
            raise ValueError(f"{place} has the <difficult> {element.findtext('difficult')!r}")
        corners = [as_number(element.findtext(f"bndbox/{tag}")) for tag in _CORNERS]
        if None in corners:
            findings.skip("object without a <bndbox> of four numbers", place)
            continue
        x0, y0, x1, y1 = corners
        if x0 > x1 or y0 > y1:  # type: ignore[operator]
            findings.mend("corners in the wrong order, swapped", place)
        low_x, high_x = sorted((x0, x1))  # type: ignore[type-var]
        low_y, high_y = sorted((y0, y1))  # type: ignore[type-var]
        box: Box = (low_x, low_y, high_x, high_y)  # type: ignore[assignment]
        yield Thing(
            label=label,
            # VOC counts pixels from 1 and includes the last: 1..W covers the image, here 0..W.
            box=(box[0] - 1, box[1] - 1, box[2], box[3]),
            place=place,
            difficult=difficult,
            voc_box=box,
        )


def _settle_classes(
    spec: VocSpec, images: Sequence[AnnotatedImage], findings: Findings
) -> list[str]:
    """The classes; labels that differ from one in upper and lower case only become it."""
    things = [thing for image in images for thing in image.things]
    if spec.classes is None:
        found = {thing.label for thing in things}
        # VOC's own data sets have these twenty, whether a split has them all or not.
        classes = list(VOC_CLASSES) if found <= set(VOC_CLASSES) else sorted(found)
    else:
        classes = list(spec.classes)
        if len(set(classes)) < len(classes):
            raise ValueError(f"classes {', '.join(classes)}: one is named twice")
    folded: dict[str, str] = {}
    for name in classes:
        folded.setdefault(name.casefold(), name)
    for thing in things:
        if thing.label in classes and spec.classes is not None:
            continue
        known = folded.get(thing.label.casefold())
        if known is None:
            raise ValueError(
                f"{thing.place} has the class {thing.label!r}, which is not among"
                f" {', '.join(classes)}"
            )
        if known != thing.label:
            findings.mend(f"class that differs in case, read as {known!r}", thing.place)
            thing.label = known
    used = {thing.label for thing in things}
    if spec.classes is None and not used <= set(VOC_CLASSES):
        classes = [name for name in classes if name in used]
    return classes
