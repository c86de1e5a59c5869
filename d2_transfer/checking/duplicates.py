"""Images that two sets share: equal files, and nearly equal pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cwrgp.image_prints import Fingerprint, fingerprints, first_similar


@dataclass(frozen=True)
class Duplicate:
    """A picture that is in both sets.

    Attributes:
        file: in the first set.
        other: in the second set.
        equal: whether the files have the same bytes. False: the pictures look the same.
    """

    file: Path
    other: Path
    equal: bool


def find_duplicates(files: Sequence[Path], others: Sequence[Path]) -> list[Duplicate]:
    """The pictures of ``files`` that are in ``others`` too, each with the first one that it equals.

    Args:
        files: images; those that cannot be read are left out.
        others: likewise. A path that is in both lists is a duplicate as well: one annotation file
            for training and one for validation may name the same images.
    """
    mine, theirs = _prints(files), _prints(others)
    first: dict[str, Path] = {}
    for file, (digest, _) in theirs.items():
        first.setdefault(digest, file)
    found: dict[Path, Duplicate] = {}
    for file, (digest, _) in mine.items():
        if digest in first:
            found[file] = Duplicate(file, first[digest], equal=True)
    for file, other in _similar(mine, theirs).items():
        found.setdefault(file, Duplicate(file, other, equal=False))
    return [found[file] for file in mine if file in found]


def find_repeats(files: Sequence[Path]) -> list[Duplicate]:
    """The pictures of one set that occur before, each with the first of them."""
    prints = _prints(files)
    first: dict[str, Path] = {}
    found: dict[Path, Duplicate] = {}
    for file, (digest, _) in prints.items():
        if (other := first.setdefault(digest, file)) is not file:
            found[file] = Duplicate(file, other, equal=True)
    order = {file: number for number, file in enumerate(prints)}
    for file, other in _similar(prints, prints).items():
        if order[other] < order[file]:
            found.setdefault(file, Duplicate(file, other, equal=False))
    return [found[file] for file in prints if file in found]


def _prints(files: Sequence[Path]) -> dict[Path, Fingerprint]:
    """Of the files that can be read, in their order."""
    found = fingerprints(files)
    return {file: print_ for file in files if (print_ := found[file]) is not None}


def _similar(mine: dict[Path, Fingerprint], theirs: dict[Path, Fingerprint]) -> dict[Path, Path]:
    """Files -> the first one of the others that looks nearly the same."""
    others = list(theirs)
    first = first_similar([p.look for p in mine.values()], [p.look for p in theirs.values()])
    return {file: others[place] for file, place in zip(mine, first, strict=True) if place >= 0}
