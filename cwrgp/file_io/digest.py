"""Digests of files: published ones, and those that are recorded beside a cached file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO

from cwrgp.file_io.atomic import write_text


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return stream_digest(file, algorithm)


def stream_digest(file: IO[bytes], algorithm: str = "sha256") -> str:
    """The digest of an open file's bytes, from its beginning, in hexadecimal."""
    result = hashlib.new(algorithm)
    file.seek(0)
    while block := file.read(1 << 20):
        result.update(block)
    return result.hexdigest()


def fits(path: Path, digest: str) -> bool:
    """Whether a file has a published digest.

    Args:
        path: the file.
        digest: ``"md5:HEX"`` or ``"sha256:HEX"``, or the beginning of one: eight digits or more.

    Raises:
        ValueError: ``digest`` is not of that form.
    """
    algorithm, _, wanted = digest.partition(":")
    if algorithm not in ("md5", "sha256") or not re.fullmatch("[0-9a-f]{8,64}", wanted):
        raise ValueError(f"digest {digest!r}: write md5:HEX or sha256:HEX, eight digits at least")
    return file_digest(path, algorithm).startswith(wanted)


def check_digest(path: Path, digest: str | None, origin: str) -> None:
    """Raises ValueError with both digests unless the file has this one; None fits every file."""
    if digest is not None and not fits(path, digest):
        algorithm, _, wanted = digest.partition(":")
        raise ValueError(
            f"{origin}: the file has {algorithm} {file_digest(path, algorithm)}, published is"
            f" {wanted}: it is damaged, or another file; it is not kept"
        )


def record_file(path: Path) -> Path:
    """Where a file's SHA-256 is recorded, in the form that ``sha256sum -c`` reads."""
    return path.with_name(f"{path.name}.sha256")


def recorded_digest(path: Path) -> str | None:
    """The SHA-256 that was recorded; None if there is none."""
    try:
        text = record_file(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return text.partition(" ")[0]


def record_digest(path: Path, digest: str | None = None) -> str:
    """Records a file's SHA-256 beside it and returns it; None computes it."""
    digest = digest or file_digest(path)
    write_text(record_file(path), f"{digest}  {path.name}\n")
    return digest


def is_intact(path: Path) -> bool:
    """Whether a file is there and has the SHA-256 that was recorded."""
    return path.is_file() and recorded_digest(path) == file_digest(path)
