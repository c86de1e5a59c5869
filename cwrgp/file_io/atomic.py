"""Files that are either written completely or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, and lets it take its place if the block succeeds.

    If the block raises, ``path`` stays as it was. The file is on the disk before it is renamed, so
    that a crash leaves the old file or the new one, never a part. The temporary name is nobody
    else's: several processes may write to one ``path``, and the last one to finish wins, whole.

    Raises:
        OSError: the disk is full, or anything else that a library says in words of its own.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o666 & ~_umask())  # mkstemp's is for its owner alone
        os.close(descriptor)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
