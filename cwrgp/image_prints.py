"""What shows that images are equal, or look nearly the same."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cwrgp.file_io.file_facts import facts_of_files
from cwrgp.images import PILLOW_ERRORS, orientation_of, pixel_kind, turn

_VERSION = 2  # of what is kept in the cache
_SIDE = 16  # of the difference hash
_NEAR = 16  # bits in which nearly equal images may differ; unrelated ones differ in about 128
_BLOCK = 4096  # images that are compared at once


class Fingerprint(NamedTuple):
    """Of an image file.

    Attributes:
        digest: `content_digest`.
        look: `difference_hash`.
    """

    digest: str
    look: int | None


def fingerprints(
    files: Sequence[Path], *, workers: int | None = None
) -> dict[Path, Fingerprint | None]:
    """The fingerprints of many files, in threads and cached by path, size and time of change.

    Returns:
        None for an image that cannot be read, which is looked at again each time.
    """
    with warnings.catch_warnings():  # here, since filters are those of all threads
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        facts = facts_of_files(
            files, _fingerprint, name="hashes", version=_VERSION, keep=bool, workers=workers
        )
    return {file: Fingerprint(*values) if values else None for file, values in facts.items()}


def content_digest(content: bytes) -> str:
    """A digest of a file's content, in hexadecimal; equal for equal files only."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def difference_hash(content: bytes) -> int | None:
    """256 bits that images which look alike share, nearly all of them.

    Bit (y, x) says whether the image, in gray, turned as EXIF asks and reduced to 17 x 16, gets
    brighter from column x to x + 1 in row y. JPEG files are decoded at a fraction of their size.

    Returns:
        None for an image of one brightness, or with NaN: it has no structure to compare.

    Raises:
        One of `cwrgp.images.PILLOW_ERRORS`: Pillow cannot decode the content.
    """
    size = (_SIDE + 1, _SIDE)
    with Image.open(io.BytesIO(content)) as image:
        image.draft("L", (8 * size[0], 8 * size[1]))
        pixel_kind(image)  # refuses what Pillow reads wrongly
        if image.mode[0] in "IF":  # `convert` would clip the values
            gray = Image.fromarray(np.asarray(image).astype(np.float32))
        else:
            gray = image.convert("L").convert("F")
        if image.format != "TIFF":  # Pillow has turned it
            gray = turn(gray, orientation_of(image))
    values = np.asarray(gray.resize(size, Image.Resampling.BOX)).astype(np.float64)
    if np.isnan(values).any() or np.ptp(values) == 0:
        return None
    bits = np.packbits(values[:, 1:] > values[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def repeated_images(
    prints: Sequence[Fingerprint], *, distance: int = _NEAR
) -> tuple[np.ndarray, np.ndarray]:
    """Which images repeat an earlier one.

    Args:
        prints: of the images.
        distance: number of bits in which the hashes of nearly equal images may differ.

    Returns:
        Two boolean arrays (n,): the content is that of an earlier image; the content is not, but
        the hash nearly is.
    """
    seen: set[str] = set()
    equal = np.zeros(len(prints), dtype=bool)
    for number, (digest, _) in enumerate(prints):
        equal[number] = digest in seen
        seen.add(digest)
    looks = [look for _, look in prints]
    first = first_similar(looks, looks, distance=distance)
    return equal, (first >= 0) & (first < np.arange(len(prints))) & ~equal


def first_similar(
    looks: Sequence[int | None], others: Sequence[int | None], *, distance: int = _NEAR
) -> np.ndarray:
    """The place in ``others`` of the first nearly equal hash, int64 (n,); -1: there is none.

    Args:
        looks: n difference hashes; None is like no other.
        others: likewise.
        distance: number of bits in which nearly equal hashes may differ.
    """
    mine, a = _signs(looks)
    theirs, b = _signs(others)
    first = np.full(len(looks), -1, dtype=np.int64)
    if not len(theirs):
        return first
    for start in range(0, len(mine), _BLOCK):
        # The product is the number of equal bits minus that of the others.
        close = a[start : start + _BLOCK] @ b.T >= _SIDE**2 - 2 * distance
        rows = mine[start : start + _BLOCK]
        first[rows] = np.where(close.any(axis=1), theirs[close.argmax(axis=1)], -1)
    return first


def _signs(looks: Sequence[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the hashes that are not None, int64 (n,), and their bits as 1 and -1, (n, 256)."""
    known = [(number, look) for number, look in enumerate(looks) if look is not None]
    places = np.array([number for number, _ in known], dtype=np.int64)
    data = b"".join(look.to_bytes(_SIDE**2 // 8, "big") for _, look in known)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).reshape(-1, _SIDE**2)
    return places, bits.astype(np.float32) * 2 - 1


def _fingerprint(file: Path) -> tuple[()] | Fingerprint:
    try:
        content = file.read_bytes()
        return Fingerprint(content_digest(content), difference_hash(content))
    except PILLOW_ERRORS:
        return ()
