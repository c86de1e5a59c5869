"""``last_checkpoint``: the text file that names the newest checkpoint of an output folder."""

from __future__ import annotations

from pathlib import Path

from cwrgp.file_io.atomic import write_text

FILE = "last_checkpoint"


def read_last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run; None if there is none.

    A run that is killed between writing its first checkpoint and naming it leaves no
    ``last_checkpoint``: then the newest ``model_*.pth`` counts.

    Args:
        folder: of the run.

    Raises:
        FileNotFoundError: ``last_checkpoint`` names a file that does not exist.
    """
    pointer = folder / FILE
    if not pointer.is_file():
        found = [*sorted(folder.glob("model_[0-9]*.pth")), *folder.glob("model_final.pth")]
        return found[-1] if found else None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    if not path.is_file():
        raise FileNotFoundError(f"{pointer} names {path.name!r}, which is not in {folder}")
    return path


def write_last_checkpoint(path: Path) -> None:
    """Names ``path`` as the newest checkpoint of its folder."""
    write_text(path.parent / FILE, path.name)
