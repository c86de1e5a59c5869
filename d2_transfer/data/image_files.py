"""What the header and the end of image files say: size, orientation, kind of pixels, damage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cwrgp.file_io.atomic import write_text
from cwrgp.file_io.cache import cache_dir

logger = logging.getLogger(__name__)

EIGHT_BIT, SIXTEEN_BIT, FLOAT = "8-bit", "16-bit", "float"

_ORIENTATION = 0x0112  # the EXIF tag
_VERSION = 1  # of the cache
_STORED_SIZE = (256, 257)  # TIFF's tags of width and height
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageFile:
    """What is known of an image file without its pixels.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        orientation: EXIF's, 1 to 8; 1: as stored.
        kind: of the pixels: "8-bit", "16-bit", or "float" for floating point and 32-bit integers.
        max_value: the largest value of a 16-bit image.
        problem: why the image cannot be read; "" if it can.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    kind: str = EIGHT_BIT
    max_value: int | None = None
    problem: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.width, self.height

    @property
    def size_as_seen(self) -> tuple[int, int]:
        """Width and height after the rotation that EXIF asks for."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def inspect_images(files: Sequence[Path], *, workers: int | None = None) -> dict[Path, ImageFile]:
    """Looks at the header and the end of image files; damaged ones have a ``problem``.

    What is found about sound images is kept in the cache of this package, by path, size and time of
    change. Only a file with a suspicious end, or of a format whose end says nothing, is decoded.

    Args:
        files: the paths.
        workers: threads; None: four for each core, since most of the time is spent waiting.
    """
    by_folder: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        by_folder.setdefault(os.path.abspath(file.parent), []).append(file)
    found: dict[Path, ImageFile] = {}
    # Filters are those of all threads, so they are set here.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(workers or 4 * (os.cpu_count() or 1)) as pool,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for folder, members in by_folder.items():
            found |= _inspect_folder(folder, members, pool)
    return found


def inspect_image(file: Path) -> ImageFile:
    """`inspect_images` of one file, without the cache."""
    try:
        with open(file, "rb") as stream:
            return _inspect(stream)
    except FileNotFoundError:
        return ImageFile(problem="no such file")
    except IsADirectoryError:
        return ImageFile(problem="a folder, not a file")
    except PermissionError:
        return ImageFile(problem="no permission to read it")
    except _PILLOW_ERRORS as error:
        return ImageFile(problem=_describe(file, error))


def _inspect_folder(
    folder: str, files: Sequence[Path], pool: ThreadPoolExecutor
) -> dict[Path, ImageFile]:
    """Inspects files of one folder, whose results share a file of the cache."""
    cache_file = cache_dir() / "images" / f"{hashlib.sha256(folder.encode()).hexdigest()[:24]}.json"
    cached = _read_cache(cache_file)
    states = dict(zip(files, pool.map(_state, files), strict=True))
    found, unknown = {}, []
    for file, state in states.items():
        entry = cached.get(file.name)
        if state is not None and entry is not None and entry[0] == state:
            found[file] = entry[1]
        else:
            unknown.append(file)
    found |= dict(zip(unknown, pool.map(inspect_image, unknown), strict=True))
    if unknown:
        for file in unknown:
            # Damage is looked at again: it may have been the network's or the permissions'.
            if (state := states[file]) is not None and not found[file].problem:
                cached[file.name] = state, found[file]
        _write_cache(cache_file, cached)
    return found


State = tuple[int, int]  # size in bytes, time of the last change in ns


def _state(file: Path) -> State | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read_cache(file: Path) -> dict[str, tuple[State, ImageFile]]:
    """The entries of a file of the cache; none if it does not exist, is old or damaged."""
    try:
        content = json.loads(file.read_bytes())
        if content["version"] != _VERSION:
            return {}
        return {
            name: ((int(size), int(time)), ImageFile(*values))
            for name, (size, time, *values) in content["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_cache(file: Path, entries: dict[str, tuple[State, ImageFile]]) -> None:
    files = {name: [*state, *astuple(image)] for name, (state, image) in entries.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"version": _VERSION, "files": files}))
    except OSError as error:
        logger.warning("what was found about the images is not kept: %s", error)


def _inspect(stream: BinaryIO) -> ImageFile:
    start = stream.read(256)
    if not start:
        return ImageFile(problem="empty file")
    if text := _text_file(start):
        return ImageFile(problem=text)
    stream.seek(0)
    with Image.open(stream) as image:
        orientation = _orientation(image)
        kind = _kind(image)
        width, height = image.size
        if image.format == "TIFF":  # Pillow's size is the one after the rotation
            width, height = (int(image.tag_v2[tag]) for tag in _STORED_SIZE)  # type: ignore[attr-defined]
        max_value = None
        if kind == SIXTEEN_BIT:
            max_value = int(np.asarray(image).max())
        elif not _ends_well(stream, image.format):
            image.load()
    return ImageFile(width, height, orientation, kind, max_value)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where the file states none."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises many classes; Detectron2 ignores it as well
        return 1
    return value if value in range(1, 9) else 1


def _text_file(start: bytes) -> str:
    """What a file is that has text instead of an image; "" if it is none of the known ones."""
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page, not an image"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not an image; run git lfs pull"
    if text.startswith((b"{", b"<?xml", b"<error")):
        return "text, not an image"
    return ""


def _kind(image: Image.Image) -> str:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return SIXTEEN_BIT
    return FLOAT if image.mode in ("I", "F") else EIGHT_BIT


def _ends_well(stream: BinaryIO, format_name: str | None) -> bool:
    """Whether the file is complete, as far as its end shows."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    stream.seek(max(0, size - 12))
    end = stream.read(12)
    if format_name in ("JPEG", "MPO"):
        return end.endswith(b"\xff\xd9")
    if format_name == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    if format_name == "WEBP":
        stream.seek(4)
        return size == int.from_bytes(stream.read(4), "little") + 8
    return False


def _describe(file: Path, error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels ({error})"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known format"
    return f"damaged ({str(error).replace(str(file), file.name) or type(error).__name__})"
