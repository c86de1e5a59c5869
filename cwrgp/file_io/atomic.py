"""Atomic writes: a file is either written completely or left as it was."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this process may write (ulimit -f)",
    errno.EIO: "the disk reports an input/output error",
}


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which replaces ``path`` if the block succeeds.

    If the block raises, ``path`` keeps its content and the temporary file is removed. The content
    is on the disk before the rename, so a crash leaves either the old file or the new one. The
    temporary name is unique: several processes may write to one ``path``, and the last one to
    finish wins with a complete file.

    Args:
        path: the file to write, in a folder that exists.
        needed: expected size in bytes, for the message if there is no room.

    Raises:
        OSError: the disk is full, a quota is used up, or the file is too large for the process.
            The message gives the path and the number of bytes needed and free, also where a
            library reported the failure as an exception of its own.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    # Unlike those of tempfile, this file follows the umask. To read the umask is to change it for
    # a moment, which would not be safe where threads write files.
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        move_into_place(temporary, path)
    except Exception as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        if reason := _find_reason(error):
            raise OSError(_describe(path, reason, written, needed)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a small file atomically; see `replacing`."""
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a small file atomically, in UTF-8; see `replacing`."""
    write_bytes(path, text.encode())


def check_folder(path: Path) -> None:
    """Checks, before the work and not after it, that a folder is there or can be made.

    Nothing is made or written.

    Raises:
        OSError: a file is in its place, or there is no permission to write.
    """
    place = path.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f"{path} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write in {place}")


def move_into_place(source: Path, path: Path) -> None:
    """Renames a complete file or folder to its final name, durably.

    Args:
        source: a file or folder on the same file system.
        path: its new name; a file, or an empty folder, of that name is replaced.
    """
    _sync(source)
    os.replace(source, path)
    _sync(path.parent)  # the rename itself


def _find_reason(error: BaseException | None) -> str | None:
    """Why the disk refused to write, if an exception or one that led to it says so.

    torch.save raises a RuntimeError while it handles the OSError of the file that it writes to;
    safetensors has the number of the error in its text.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number in _REASONS:
            return _REASONS[number]
        error = error.__cause__ or error.__context__
    return None


def _describe(path: Path, reason: str, written: int, needed: int | None) -> str:
    wanted = f"about {_megabytes(needed)}" if needed else f"more than {_megabytes(written)}"
    free = _megabytes(shutil.disk_usage(path.parent).free)
    return (
        f"{path} was not written: {reason} ({wanted} needed, {free} free in {path.parent});"
        " make room and run the command again"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
