"""Seeded subsets of a data set: ``coco_2017_train_1percent`` is 1 % of ``coco_2017_train``.

The images are put into a random order, of which a subset is a range: ``NAME_10percent`` the first
tenth, ``NAME_90to100percent`` the last one. So the subsets of one seed are nested, and ranges
without a common part have no common image: ``NAME_0to90percent`` can be trained on and
``NAME_90to100percent`` validated on. This module works without Detectron2;
`d2_transfer.data.registry` registers the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cwrgp.file_io.atomic import write_text
from cwrgp.seeding import Stream, numpy_generator
from d2_transfer.data.spec import as_file_name

_NUMBER = r"\d+(?:\.\d+)?"
_NAME = re.compile(rf"(?P<base>.+?)_(?:(?P<start>{_NUMBER})to)?(?P<end>{_NUMBER})percent")


@dataclass(frozen=True)
class Subset:
    """A share of a data set's images.

    Attributes:
        name: of the subset.
        base: name of the whole data set.
        start: of the range in percent of the images, from 0.
        end: likewise, above ``start`` and at most 100.
        seed: of the order.
    """

    name: str
    base: str
    start: float
    end: float
    seed: int


def parse_subset(name: str, seed: int) -> Subset | None:
    """The subset of that name, ``BASE_Npercent`` or ``BASE_MtoNpercent``; None: another form.

    Raises:
        ValueError: the share is not above 0 and at most 100, or the range is empty.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start, end = float(match["start"] or 0), float(match["end"])
    if not 0 < end <= 100:
        raise ValueError(f"{name!r}: {match['end']} % is not above 0 and at most 100")
    if start >= end:
        raise ValueError(f"{name!r}: the range from {start:g} to {end:g} % is empty")
    return Subset(name, match["base"], start, end, seed)


def subset_name(base: str, end: float, start: float = 0) -> str:
    """The name of a subset, in percent."""
    first, last = (np.format_float_positional(share, trim="-") for share in (start, end))
    return f"{base}_{f'{first}to' if start else ''}{last}percent"


def choose_images(
    ids: Iterable[int] | Iterable[str], end: float, seed: int, *, start: float = 0
) -> list[Any]:
    """The images of a subset, a pure function of its arguments.

    All ids are put into an order that depends on the seed alone, and a range of it is taken. So a
    smaller share is part of a larger one, and the order of the file does not matter.

    Args:
        ids: of all images, each once, in any order.
        end: of the range in percent of the images, above ``start`` and at most 100; rounded to the
            nearest number of images, one at least.
        seed: of the order; not negative.
        start: of the range, likewise rounded.

    Returns:
        The chosen ids, sorted.

    Raises:
        ValueError: no image is in the range.
    """
    everything = sorted(ids, key=_sort_key)
    assert len(set(everything)) == len(everything), "an image is listed twice"
    order = numpy_generator(Stream.DETECTION_SUBSET, seed).permutation(len(everything))
    # The end of one range is the start of the next, also where it is rounded up to one image.
    first, last = (max(1, round(len(everything) * to / 100)) if to else 0 for to in (start, end))
    if first >= last:
        raise ValueError(
            f"no image is in the range from {start:g} to {end:g} % of {len(everything)} images"
        )
    return sorted((everything[i] for i in order[first:last]), key=_sort_key)


def _sort_key(number: int | str) -> tuple[bool, int | str]:
    return isinstance(number, str), number


def write_subset(folder: Path, subset: Subset, ids: Sequence[int | str]) -> Path:
    """Writes ``NAME.json`` with the ids of a subset's images and how they were chosen.

    Args:
        folder: is created if it does not exist.
        subset: which.
        ids: what `choose_images` returns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{as_file_name(subset.name)}.json"
    content = {
        "data_set": subset.base,
        "from_percent": subset.start,
        "to_percent": subset.end,
        "seed": subset.seed,
        "num_images": len(ids),
        "image_ids": list(ids),
    }
    write_text(path, json.dumps(content) + "\n")
    return path
