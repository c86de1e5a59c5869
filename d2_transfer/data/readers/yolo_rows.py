"""Rows of YOLO's label files: their numbers, and what is beside boxes and polygons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from d2_transfer.data.annotated import AnnotatedImage
from d2_transfer.data.values import as_number

_DECIMAL_COMMA = re.compile(r"-?\d*(,\d+)?")


@dataclass(frozen=True)
class Row:
    """A row of a label file.

    Attributes:
        image: whose it is.
        label: number of the class.
        words: the numbers after it.
        place: file and line, for messages.
    """

    image: AnnotatedImage
    label: int
    words: Sequence[str]
    place: str


def split_row(line: str) -> list[str]:
    """The words of a line, between spaces, commas or semicolons; "0,5 0,25" has decimal commas."""
    words = line.replace(";", " ").split()
    if len(words) >= 5 and "," in line and all(map(_DECIMAL_COMMA.fullmatch, words)):
        return [word.replace(",", ".") for word in words]
    return line.replace(";", " ").replace(",", " ").split()


@dataclass(frozen=True)
class RowForm:
    """What all rows of a data set together show about numbers that can mean several things.

    Attributes:
        tracked: six numbers are a box, a confidence and the integer of a track, not a triangle.
        keypoints: boxes are followed by keypoints x, y, visibility.
        polygons_have_confidence: an odd number of coordinates has a confidence at its end.
    """

    tracked: bool
    keypoints: bool
    polygons_have_confidence: bool

    @classmethod
    def of(cls, rows: Sequence[Row]) -> RowForm:
        """That of the rows of a data set.

        Raises:
            ValueError: a fifth number is neither a confidence nor the number of a track, or boxes
                are corners.
        """
        six = [row for row in rows if len(row.words) == 6]
        long = [row for row in rows if len(row.words) > 6]
        for row in rows:
            if len(row.words) == 5 and _is_angle(row.words[4]):
                raise ValueError(
                    f"{row.place}: the number {row.words[4]} after the box is neither a"
                    " confidence nor the number of a track; rotated boxes are not read, write"
                    " them as polygons"
                )
        _check_corners(rows)
        return cls(
            tracked=bool(six)
            and all(_is_confidence(row.words[4]) and row.words[5].isdecimal() for row in six),
            keypoints=bool(long) and all(map(_has_keypoints, long)),
            polygons_have_confidence=len(long) > 1
            and all(len(row.words) % 2 and _is_confidence(row.words[-1]) for row in long),
        )

    def after_box(self, numbers: Sequence[float]) -> str:
        """What follows a box in these numbers; "" where nothing does, or they are a polygon."""
        if len(numbers) == 5:
            return "confidence" if 0 <= numbers[4] <= 1 else "number of a track"
        if len(numbers) == 6 and self.tracked:
            return "confidence and number of a track"
        if len(numbers) > 6 and self.keypoints:
            return "keypoints"
        return ""


def _is_confidence(word: str) -> bool:
    number = as_number(word)
    return number is not None and 0 <= number <= 1


def _is_angle(word: str) -> bool:
    known = as_number(word) is None or _is_confidence(word) or word.isdecimal()
    return not known


def _has_keypoints(row: Row) -> bool:
    """Whether every third number after the box is a visibility, 0, 1 or 2."""
    after = row.words[4:]
    return len(after) % 3 == 0 and {as_number(word) for word in after[2::3]} <= {0, 1, 2}


def _check_corners(rows: Sequence[Row]) -> None:
    """Refuses boxes that are all x0, y0, x1, y1, of which some are none as x, y, width, height."""
    places, beyond = [], 0
    for row in rows:
        values = [number for number in map(as_number, row.words) if number is not None]
        if len(row.words) not in (4, 5) or len(values) < len(row.words):
            continue
        x, y, width, height = values[:4]
        if not (0 <= x < width <= 1 and 0 <= y < height <= 1):
            return
        places.append(row.place)
        beyond += max(width / 2 - x, x + width / 2 - 1, height / 2 - y, y + height / 2 - 1) > 0.02
    if places and beyond >= len(places) / 4:
        raise ValueError(
            f"{places[0]}: all {len(places)} boxes are corners x0, y0, x1, y1, since {beyond} of"
            " them reach beyond their image when read as center, width and height: write these"
        )
