"""Seeded subsets of a data set: ``coco_2017_train_1percent`` is 1 % of ``coco_2017_train``.

The subsets of one seed are nested: the images of 1 % are among those of 2 %. This module works
without Detectron2; `d2_transfer.data.registry` registers the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwrgp.file_io.atomic import write_text
from cwrgp.seeding import Stream, numpy_generator

_NAME = re.compile(r"(?P<base>.+)_(?P<percent>\d+(?:\.\d+)?)percent")


@dataclass(frozen=True)
class Subset:
    """A share of a data set's images.

    Attributes:
        name: of the subset.
        base: name of the whole data set.
        percent: of its images, above 0 and at most 100.
        seed: of the choice.
    """

    name: str
    base: str
    percent: float
    seed: int


def parse_subset(name: str, seed: int) -> Subset | None:
    """The subset of that name, ``BASE_Npercent``; None: the name is not of this form.

    Raises:
        ValueError: the share is not above 0 and at most 100.
    """
    match = _NAME.fullmatch(name)
    if match is None or ":" in name:
        return None
    percent = float(match["percent"])
    if not 0 < percent <= 100:
        raise ValueError(f"{name!r}: {match['percent']} % is not above 0 and at most 100")
    return Subset(name, match["base"], percent, seed)


def choose_images(ids: Iterable[int], percent: float, seed: int) -> list[int]:
    """The images of a subset, a pure function of its arguments.

    All ids are put into an order that depends on the seed alone, and the first ones are taken.
    So a smaller share is part of a larger one, and the order of the file does not matter.

    Args:
        ids: of all images, each once, in any order.
        percent: of the images, above 0 and at most 100; rounded to the nearest number of images,
            one at least.
        seed: of the choice; not negative.

    Returns:
        The chosen ids, sorted.
    """
    everything = sorted(ids)
    assert len(set(everything)) == len(everything), "an image is listed twice"
    order = numpy_generator(Stream.DETECTION_SUBSET, seed).permutation(len(everything))
    count = min(max(1, round(len(everything) * percent / 100)), len(everything))
    return sorted(everything[i] for i in order[:count])


def write_subset(folder: Path, subset: Subset, ids: Sequence[int]) -> Path:
    """Writes ``NAME.json`` with the ids of a subset's images and how they were chosen.

    Args:
        folder: is created if it does not exist.
        subset: which.
        ids: what `choose_images` returns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{subset.name}.json"
    content = {
        "data_set": subset.base,
        "percent": subset.percent,
        "seed": subset.seed,
        "num_images": len(ids),
        "image_ids": list(ids),
    }
    write_text(path, json.dumps(content) + "\n")
    return path
