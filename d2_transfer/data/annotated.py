"""Annotated images in one form, whatever format they are stored in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Corners x0, y0, x1, y1 in pixels: the image covers (0, 0) to (width, height).
Box = tuple[float, float, float, float]
# Polygons [[x, y, x, y, ...], ...] in pixels, or an RLE {"size": [height, width], "counts": ...}.
Mask = list[list[float]] | dict[str, Any]

CLOSE = 2  # px between sizes of an image: tools that round or crop; a resized copy differs by more
_ROUNDED = 0.5  # px between corners of an object, one of them rounded


@dataclass(slots=True)
class Thing:
    """An annotated object.

    Attributes:
        label: name of its class, as the file has it.
        box: its corners. A reader gives them as the file has them, which may be nonsense.
        place: file and entry, for messages, such as "train.json: annotation 7".
        crowd: whether it stands for a group, which is not trained on and ignored by COCO's metric.
        difficult: whether VOC's metric ignores it.
        mask: its mask; None: the file has none.
        area: as the file has it, for COCO's size ranges; None: that of the mask or the box.
        voc_box: corners as a VOC file has them: counted from 1, the last pixel included.
        boxed_by_mask: whether the file has no box, so that it is that of the mask in its image.
    """

    label: str
    box: Box
    place: str
    crowd: bool = False
    difficult: bool = False
    mask: Mask | None = None
    area: float | None = None
    voc_box: Box | None = None
    boxed_by_mask: bool = False

    def is_same(self, other: Thing) -> bool:
        """Whether another entry is of the same object: equal but for rounding, mask and area."""
        mine, others = ((t.label, t.crowd, t.difficult) for t in (self, other))
        pairs = zip(self.box, other.box, strict=True)
        return mine == others and all(abs(a - b) <= _ROUNDED for a, b in pairs)


@dataclass
class AnnotatedImage:
    """An image and its objects.

    Attributes:
        id: as the file has it, by which results name the image: an integer or a text.
        name: of the image file, as the annotations have it, with or without folders and suffix.
        place: file and entry, for messages.
        width: in pixels, of the image that the boxes are drawn in; None: not stated.
        height: likewise.
        things: the objects.
        file: the image on disk; None: not looked for.
        other_name: of the image file, which is looked for where ``name`` does not decide.
        other_ids: of further entries of the same image.
        listed_twice: whether there are such entries, under another id or the same.
        turned: whether the EXIF orientation is applied before the boxes fit. False: the annotation
            tool ignored the tag, so a reader of the image must ignore it as well.
    """

    id: int | str
    name: str
    place: str
    width: float | None = None
    height: float | None = None
    things: list[Thing] = field(default_factory=list)
    file: Path | None = None
    turned: bool = True
    other_name: str = ""
    other_ids: list[int | str] = field(default_factory=list)
    listed_twice: bool = False

    def unite(self, other: AnnotatedImage) -> None:
        """Takes over the objects, and where it lacks them the sides, of another entry.

        Raises:
            ValueError: the entries state different sizes, so boxes of one are of another copy.
        """
        mine, others = (self.width, self.height), (other.width, other.height)
        if any(a and b and abs(a - b) > CLOSE for a, b in zip(mine, others, strict=True)):
            raise ValueError(
                f"{self.place} and {other.place} are the same image, but of the sizes"
                f" {_sides(mine)} and {_sides(others)}: one has the boxes of a resized or turned"
                " copy; remove it"
            )
        self.listed_twice = True
        self.things += other.things
        self.other_ids += [i for i in (other.id, *other.other_ids) if i != self.id]
        if self.width is None or self.height is None:
            self.width, self.height = other.width, other.height

    def drop_equal(self) -> int:
        """Keeps one of objects of the same class and box; returns how many are dropped.

        What one lacks of mask and area is the other's.
        """
        kept: list[Thing] = []
        for thing in self.things:
            same = next((other for other in kept if other.is_same(thing)), None)
            if same is None:
                kept.append(thing)
            elif same.mask is None and thing.mask is not None:
                same.mask, same.area = thing.mask, thing.area
        dropped = len(self.things) - len(kept)
        self.things = kept
        return dropped


def _sides(size: tuple[float | None, float | None]) -> str:
    return " x ".join("?" if side is None else f"{side:g}" for side in size)


@dataclass
class AnnotatedData:
    """The annotations of a data set.

    Attributes:
        images: in the order of the file.
        classes: names, in the order of the class numbers.
        category_ids: of the file's categories, one for each class, by which results name them.
        protocol: the data set's own metric: "coco", "voc07" (11 points of recall) or "voc10" (all
            points).
        source: the annotation file or folder, for messages.
        category_aliases: ids of categories that were merged into another -> the other's id.
        image_root: folder in which the images are looked for; None: not known.
        relative: whether boxes and polygons are in units of the image's sides, as in YOLO's files.
    """

    images: list[AnnotatedImage]
    classes: Sequence[str]
    category_ids: Sequence[int | str]
    protocol: str
    source: str
    category_aliases: dict[int | str, int | str] = field(default_factory=dict)
    image_root: Path | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        self.relative_file = self.relative  # also once boxes are pixels, for messages

    @property
    def numbered_by_order(self) -> bool:
        """Whether the file has no ids of categories, so that they count from 1 in order."""
        return self.protocol != "coco" or self.relative_file

    @property
    def num_things(self) -> int:
        """The number of objects, with crowds."""
        return sum(len(image.things) for image in self.images)

    def count_as_text(self) -> str:
        """Such as "1428 objects and 16 crowds"."""
        crowds = sum(thing.crowd for image in self.images for thing in image.things)
        return f"{self.num_things - crowds} objects" + (f" and {crowds} crowds" if crowds else "")
