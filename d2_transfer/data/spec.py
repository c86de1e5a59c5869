"""Data on a command line: ``coco:FILE[:IMAGES]``, ``voc:ROOT:SPLIT``, or a registered name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CocoSpec:
    """Annotations in COCO form.

    Attributes:
        json_file: the annotation file.
        images: folder of the images; None: not needed.
    """

    json_file: Path
    images: Path | None = None


@dataclass(frozen=True)
class VocSpec:
    """A split of a data set in VOC form.

    Attributes:
        root: folder with ``Annotations`` and ``ImageSets``.
        split: name of a list in ``ImageSets/Main``, without ``.txt``.
    """

    root: Path
    split: str


def parse_spec(text: str) -> CocoSpec | VocSpec | str:
    """What a spec names.

    Args:
        text: ``coco:ANN.json``, ``coco:ANN.json:IMAGES``, ``voc:ROOT:SPLIT``, or a name.

    Returns:
        A spec, or the name of a registered data set, as it is.

    Raises:
        ValueError: an unknown kind, or a part is missing.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        return text
    parts = rest.split(":")
    if kind == "coco" and len(parts) <= 2 and all(parts):
        return CocoSpec(*(Path(part).expanduser() for part in parts))
    if kind == "voc" and len(parts) == 2 and all(parts):
        return VocSpec(Path(parts[0]).expanduser(), parts[1])
    raise ValueError(
        f"{text!r} is not a data set; write coco:ANN.json[:IMAGES], voc:ROOT:SPLIT, or the name of "
        "a registered one"
    )
