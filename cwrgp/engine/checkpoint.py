"""The checkpoints of a run. Each is written atomically, so a kill leaves all of them intact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cwrgp.checkpoints.last_checkpoint import read_last_checkpoint, write_last_checkpoint
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.checkpoints.writer import write_checkpoint


class Checkpoints:
    """The checkpoints of a run: ``model_0000124.pth`` after iteration 124, and the name of the
    last one.

    Args:
        folder: of the run.
        keep: how many periodic checkpoints stay on disk; 0 keeps all.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 0) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, state: dict[str, Any], name: str) -> Path:
        """Writes ``name``.pth, names it as the last checkpoint, and removes the oldest ones."""
        path = self.save_aside(state, name)
        write_last_checkpoint(path)
        if self.keep:
            for old in sorted(self.folder.glob("model_[0-9]*.pth"))[: -self.keep]:
                old.unlink()
        return path

    def save_aside(self, state: dict[str, Any], name: str) -> Path:
        """Writes ``name``.pth, which does not become the last checkpoint."""
        path = self.folder / f"{name}.pth"
        write_checkpoint(path, state)
        return path

    def last(self) -> Path | None:
        """The last checkpoint; None if there is none.

        Raises:
            FileNotFoundError: the file that ``last_checkpoint`` names does not exist.
        """
        return read_last_checkpoint(self.folder)

    def load_last(self) -> dict[str, Any] | None:
        """The state that :meth:`save` was last given, on the CPU."""
        path = self.last()
        return None if path is None else read_checkpoint(path)
