"""Where trials and their cells keep what they have found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d2_transfer.trials.plan import Cell

RESULT = "result.json"
# What the trials end in, in their folder.
RESULT_FILES = ("report.html", "results.json", "results.csv", "table.md", "table.tex")


def cell_folder(output: Path, cell: Cell) -> Path:
    """The folder of a cell: its result, and the run."""
    return output / "cells" / cell.name


def read_result(output: Path, cell: Cell) -> dict[str, Any] | None:
    """What `d2_transfer.trials.cell.run_cell` wrote; None if the cell is not done."""
    path = cell_folder(output, cell) / RESULT
    return json.loads(path.read_text()) if path.is_file() else None
