"""Files that are either written completely or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, and lets it take its place if the block succeeds.

    If the block raises, ``path`` stays as it was. The file is on the disk before it is renamed, so
    that a crash leaves the old file or the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # a killed run's is overwritten
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
