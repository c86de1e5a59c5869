"""Annotations in PASCAL VOC form, as VOC, labelImg and other tools write them."""

from __future__ import annotations

import math
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Box, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.readers.voc_files import VocFile, voc_files, voc_image_folder
from d2_transfer.data.readers.voc_xml import UNKNOWN, NoAnnotations, parse_xml, read_corners
from d2_transfer.data.spec import VOC_CLASSES, VocSpec
from d2_transfer.data.values import as_flag, as_number, as_side


def read_voc_data(spec: VocSpec, findings: Findings) -> AnnotatedData:
    """Reads a split; boxes may still be outside their image.

    Args:
        spec: the folder and the split: the name of a list, of a folder of annotations as Roboflow
            writes it, or ``all`` for every annotation file.
        findings: gets what is mended and skipped.

    Raises:
        FileNotFoundError: the list does not exist, or none of its annotations.
        ValueError: a file is malformed, an object is of a class that ``spec.classes`` lacks, or
            boxes are not corners.
    """
    files = voc_files(spec, findings)
    images: list[AnnotatedImage] = []
    problem = ""
    for entry in files:
        if entry.file is None:
            findings.skip("image without an annotation file", f"{spec.root}: {entry.name}")
            continue
        try:
            images.append(_read_image(entry, findings))
        except NoAnnotations as error:
            findings.skip(error.kind, str(error))
            problem = problem or str(error)
    if not images:
        if problem:
            raise ValueError(problem)
        raise FileNotFoundError(
            f"{spec.root}: none of the {len(files)} annotation files exists, such as"
            f" {files[0].name}.xml"
        )
    _settle_corners(images, findings)
    classes = _settle_classes(spec, images, findings)
    return AnnotatedData(
        images=images,
        classes=classes,
        category_ids=list(range(1, len(classes) + 1)),
        protocol="voc07" if spec.is_2007 else "voc10",
        source=f"{spec.root} ({spec.split})",
        image_root=voc_image_folder(spec.root),
    )


def _read_image(entry: VocFile, findings: Findings) -> AnnotatedImage:
    assert entry.file is not None
    root = parse_xml(entry.file, findings)
    file_name = (root.findtext("filename") or "").strip()
    image = AnnotatedImage(
        id=entry.name,
        name=entry.image,
        other_name="" if UNKNOWN in file_name else file_name,
        place=str(entry.file),
        width=as_side(root.findtext("size/width")),
        height=as_side(root.findtext("size/height")),
    )
    for number, element in enumerate(root.findall("object"), start=1):
        place = f"{entry.file}: object {number}"
        image.things += _read_things(element, place, findings)
    return image


def _read_things(element: ET.Element, place: str, findings: Findings) -> Iterator[Thing]:
    """The objects of an element, with the corners as the file has them."""
    label = " ".join(unicodedata.normalize("NFC", element.findtext("name") or "").split())
    if not label:
        raise ValueError(f"{place} has no <name>")
    difficult = _as_difficult(element.findtext("difficult"))
    if difficult is None:
        raise ValueError(f"{place} has the <difficult> {element.findtext('difficult')!r}")
    for corners in read_corners(element, place, findings):
        yield Thing(label, corners, place, difficult=difficult, voc_box=corners)


def _as_difficult(text: str | None) -> bool | None:
    text = (text or "").strip()
    number = as_number(text)
    if number is not None and number >= 0:
        return number > 0
    return False if text.lower() == "unspecified" else as_flag(text)


def _settle_corners(images: Sequence[AnnotatedImage], findings: Findings) -> None:
    """Puts corners in order, and counts them from 0, in place.

    Raises:
        ValueError: they are x, y, width and height.
    """
    _check_sizes(images)
    for image in images:
        for thing in image.things:
            x0, y0, x1, y1 = thing.box
            if _swaps(thing.box) != (False, False):
                findings.mend("corners in the wrong order, swapped", thing.place)
                x0, x1 = sorted((x0, x1))
                y0, y1 = sorted((y0, y1))
            thing.voc_box = (x0, y0, x1, y1)
            # VOC counts pixels from 1 and includes the last: 1..W covers the image, here 0..W.
            thing.box = (x0 - 1, y0 - 1, x1, y1)


def _swaps(corners: Box) -> tuple[bool, bool]:
    return corners[0] > corners[2], corners[1] > corners[3]


def _check_sizes(images: Sequence[AnnotatedImage]) -> None:
    """Refuses boxes that all fit as x, y, width and height, and of which many are no corners."""
    pairs = [(image, thing) for image in images for thing in image.things]
    swapped = [thing for _, thing in pairs if _swaps(thing.box) != (False, False)]
    # A tool with another order of corners swaps the same ones in all boxes.
    if len(swapped) < len(pairs) / 4 or len({_swaps(thing.box) for _, thing in pairs}) == 1:
        return
    for image, thing in pairs:
        x, y, width, height = thing.box
        if x + width > (image.width or math.inf) + 1 or y + height > (image.height or math.inf) + 1:
            return
    raise ValueError(
        f"{swapped[0].place}: {len(swapped)} of {len(pairs)} boxes have xmax below xmin or ymax"
        " below ymin, and all fit their images as x, y, width and height: write corners"
    )


def _fold(name: str) -> str:
    """A class name without differences of case, spaces and Unicode's normal forms."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _settle_classes(
    spec: VocSpec, images: Sequence[AnnotatedImage], findings: Findings
) -> list[str]:
    """The classes; labels that differ from one in case or spaces only become it."""
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
        folded.setdefault(_fold(name), name)
    for thing in things:
        if thing.label in classes and spec.classes is not None:
            continue
        known = folded.get(_fold(thing.label))
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
