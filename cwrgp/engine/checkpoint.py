"""Checkpoints that a kill at any moment leaves whole: written aside, synced, renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from cwrgp.checkpoints.reader import read_checkpoint

LAST = "last_checkpoint"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file so that ``path`` is at every moment the old content or the new one.

    Args:
        path: the file.
        write: called with the open temporary file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


class Checkpoints:
    """The checkpoints of a run: ``model_0000124.pth`` after iteration 124, and the name of the
    last one.

    Args:
        folder: OUTPUT_DIR.
        keep: how many periodic checkpoints stay on disk; 0 keeps all.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 0) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, state: dict[str, Any], name: str) -> Path:
        """Writes ``name``.pth, makes it the last checkpoint, and removes what is too old."""
        path = self.save_aside(state, name)
        write_atomically(self.folder / LAST, lambda file: file.write(path.name.encode()))
        if self.keep:
            for old in sorted(self.folder.glob("model_[0-9]*.pth"))[: -self.keep]:
                old.unlink()
        return path

    def save_aside(self, state: dict[str, Any], name: str) -> Path:
        """Writes ``name``.pth, which does not become the last checkpoint."""
        path = self.folder / f"{name}.pth"
        write_atomically(path, lambda file: torch.save(state, file))
        return path

    def last(self) -> Path | None:
        """The last checkpoint, None where there is none.

        Raises:
            FileNotFoundError: the file that ``last_checkpoint`` names is gone.
        """
        pointer = self.folder / LAST
        if not pointer.is_file():  # a kill right after the first checkpoint leaves none
            models = sorted(self.folder.glob("model_*.pth"))
            return models[-1] if models else None
        path = self.folder / pointer.read_text().strip()
        if not path.is_file():
            raise FileNotFoundError(f"{pointer} names {path.name}, which is not there")
        return path

    def load_last(self) -> dict[str, Any] | None:
        """The state that :meth:`save` was last given, on the CPU."""
        path = self.last()
        return None if path is None else read_checkpoint(path)
