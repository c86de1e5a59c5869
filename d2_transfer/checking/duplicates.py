"""Images that two sets share: equal files, and nearly equal pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cwrgp.file_io.digest import file_digest

_SIDE = 16  # of the perceptual hash, which has 16 x 16 bits
_NEAR = 16  # bits in which nearly equal pictures may differ; unrelated ones differ in about 128
_BLOCK = 4096  # pictures that are compared at once


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
        files: readable images.
        others: likewise. A path that is in both lists is a duplicate as well: one annotation file
            for training and one for validation may name the same images.
    """
    mine, theirs = _Hashes(files), _Hashes(others)
    first: dict[str, Path] = {}
    for file, digest in zip(theirs.files, theirs.digests, strict=True):
        first.setdefault(digest, file)
    found: dict[Path, Duplicate] = {}
    for file, digest in zip(mine.files, mine.digests, strict=True):
        if digest in first:
            found[file] = Duplicate(file, first[digest], equal=True)
    for row, column in _near_pairs(mine.bits, theirs.bits):
        file, other = mine.pictures[row], theirs.pictures[column]
        if file not in found:
            found[file] = Duplicate(file, other, equal=False)
    return [found[file] for file in files if file in found]


def find_repeats(files: Sequence[Path]) -> list[Duplicate]:
    """The pictures of one set that occur before, each with the first of them."""
    hashes = _Hashes(files)
    first: dict[str, Path] = {}
    found: dict[Path, Duplicate] = {}
    for file, digest in zip(hashes.files, hashes.digests, strict=True):
        if (other := first.setdefault(digest, file)) is not file:
            found[file] = Duplicate(file, other, equal=True)
    for row, column in _near_pairs(hashes.bits, hashes.bits):
        if column < row and hashes.pictures[row] not in found:
            pair = hashes.pictures[row], hashes.pictures[column]
            found[pair[0]] = Duplicate(*pair, equal=False)
    return [found[file] for file in files if file in found]


def perceptual_hash(file: Path) -> np.ndarray | None:
    """Whether each of 16 x 16 areas of an image is brighter than its left neighbour.

    It hardly changes if an image is resized or compressed again.

    Returns:
        (256,) of bool; None: the image cannot be read, or has no structure to compare.
    """
    try:
        with Image.open(file) as image:
            image.draft("L", (8 * _SIDE, 8 * _SIDE))
            turned = ImageOps.exif_transpose(image)
            if turned.mode[0] in "IF":  # convert would clip them
                grey = Image.fromarray(np.asarray(turned).astype(np.float32))
            else:
                grey = turned.convert("L").convert("F")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    small = np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    if np.isnan(small).any() or np.ptp(small) == 0:
        return None
    return small[:, 1:] > small[:, :-1]


class _Hashes:
    """Digests of all files, and perceptual hashes (n, 256) of those that have one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(dict.fromkeys(files))
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self.digests = list(pool.map(file_digest, self.files))
            hashes = list(pool.map(perceptual_hash, self.files))
        known = [(f, h.ravel()) for f, h in zip(self.files, hashes, strict=True) if h is not None]
        self.pictures = [file for file, _ in known]
        self.bits = np.array([bits for _, bits in known], dtype=bool).reshape(-1, _SIDE**2)


def _near_pairs(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows of two arrays (n, 256) of bool that differ in few bits, in order."""
    signs_b = np.where(b, 1, -1).astype(np.float32).T
    for start in range(0, len(a), _BLOCK):
        signs_a = np.where(a[start : start + _BLOCK], 1, -1).astype(np.float32)
        rows, columns = np.nonzero(signs_a @ signs_b >= _SIDE**2 - 2 * _NEAR)
        yield from zip((rows + start).tolist(), columns.tolist(), strict=True)
