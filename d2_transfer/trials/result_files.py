"""Where trials and their cells keep what they have found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cwrgp.cells import folder_result
from d2_transfer.trials.plan import Cell

# What the trials end in, in their folder.
RESULT_FILES = ("report.html", "results.json", "results.csv", "table.md", "table.tex")


def cell_folder(output: Path, cell: Cell) -> Path:
    """The folder of a cell: its result, and the run."""
    return output / "cells" / cell.name


def read_result(output: Path, cell: Cell) -> dict[str, Any] | None:
    """What `d2_transfer.trials.cell.run_cell` wrote; None if the cell is not done."""
    return folder_result(cell_folder(output, cell))
