"""An annotation file in VOC form as XML, and the boxes of its objects."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from d2_transfer.data.annotated import Box
from d2_transfer.data.findings import Findings
from d2_transfer.data.other_formats import advice_for_xml
from d2_transfer.data.values import as_number, read_text

UNKNOWN = "\ufffd"  # for bytes that are not text

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ROTATED = ("cx", "cy", "w", "h", "angle")
_OBJECT = re.compile(r"<object\b.*?</object>", re.DOTALL | re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?!#?\w+;)")


class NoAnnotations(ValueError):
    """A file without annotations in VOC form.

    Attributes:
        kind: what is wrong with it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def parse_xml(file: Path, findings: Findings) -> ET.Element:
    """The outermost element, with tags in lower case and without namespaces.

    Bytes that are not text become `UNKNOWN`.

    Raises:
        NoAnnotations: XML of another form.
        ValueError: the file is damaged, or its encoding unknown.
    """
    # A declaration of the encoding does not count in a text, which is decoded already.
    text = _decode(file, findings).lstrip("\ufeff \r\n\t")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        try:
            root = ET.fromstring(_AMPERSAND.sub("&amp;", text))
        except ET.ParseError:
            raise ValueError(f"{file} is not valid XML: {error}") from error
        findings.mend("'&' in XML, read as '&amp;'", str(file))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    if root.tag != "annotation":
        advice = advice_for_xml(file, root.tag)
        raise NoAnnotations(
            "XML file that is not in VOC form",
            advice or f"{file} is not in VOC form: it begins <{root.tag}>",
        )
    return root


def _decode(file: Path, findings: Findings) -> str:
    try:
        return read_text(file)
    except ValueError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        # Often paths only, of which no use is made.
        text = file.read_bytes().decode("utf-8", errors="replace")
        if any(UNKNOWN in part for part in _OBJECT.findall(text)):
            raise
        if UNKNOWN in text:
            findings.mend("bytes beside the objects that are not text, not used", str(error))
        return text


def read_corners(element: ET.Element, place: str, findings: Findings) -> list[Box]:
    """The corners of an object as the file has them: counted from 1, the last pixel included.

    An object without a box has that around its polygon or its rotated box, one with several boxes
    counts as several objects.

    Args:
        element: the object.
        place: of the object, for messages.
        findings: gets what is mended, and objects without a box.
    """
    found = [_numbers(box, _CORNERS) for box in element.findall("bndbox")]
    boxes = [box for box in found if box is not None]
    if len(boxes) > 1:
        findings.mend("object with several boxes, one object for each", place)
    if not boxes and (box := _around_polygon(element)) is not None:
        findings.mend("polygon without a box, the box around it used", place)
        boxes = [box]
    if not boxes and (box := _around_rotated(element)) is not None:
        findings.mend("rotated box, the box around it used", place)
        boxes = [box]
    if not boxes or len(boxes) < len(found):
        findings.skip("object without a <bndbox> of four numbers", place)
    return boxes  # type: ignore[return-value]


def _numbers(element: ET.Element, tags: tuple[str, ...]) -> tuple[float, ...] | None:
    texts = [(element.findtext(tag) or "").replace(",", ".") for tag in tags]  # 10,5 is 10.5
    numbers = tuple(as_number(text) for text in texts)
    return None if None in numbers else numbers  # type: ignore[return-value]


def _around_polygon(element: ET.Element) -> Box | None:
    """The corners of <polygon>, as <x1>, <y1>, <x2> ... or as <pt> with <x> and <y>."""
    polygon = element.find("polygon")
    if polygon is None:
        return None
    sides = []
    for axis in "xy":
        texts = [part.text for part in polygon.iter() if re.fullmatch(rf"{axis}\d*", part.tag)]
        numbers = [number for number in map(as_number, texts) if number is not None]
        if len(numbers) < len(texts) or len(numbers) < 3:
            return None
        sides.append((min(numbers), max(numbers)))
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1


def _around_rotated(element: ET.Element) -> Box | None:
    """The corners of <robndbox>, whose angle is in radians."""
    box = element.find("robndbox")
    numbers = None if box is None else _numbers(box, _ROTATED)
    if numbers is None or not all(map(math.isfinite, numbers)):
        return None
    x, y, width, height, angle = numbers
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - half_x + 1, y - half_y + 1, x + half_x, y + half_y
