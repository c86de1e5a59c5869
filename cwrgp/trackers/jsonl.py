"""metrics.json: one JSON object per line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwrgp.file_io.atomic import write_text

NAME = "metrics.json"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a ``metrics.json``; a line that a kill cut short is omitted."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("iteration"), int):
                records.append(record)
    return records


class JsonlTracker:
    """Appends to ``metrics.json``; drops the records from ``start_step`` on that a killed run left.

    Args:
        folder: gets the file.
        start_step: the first step of this start.
        config: not used.
    """

    def __init__(self, folder: Path, *, start_step: int, config: Mapping[str, Any]) -> None:
        path = folder / NAME
        kept = [record for record in read_metrics(path) if record["iteration"] < start_step]
        write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept))
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes a line."""
        self._file.write(json.dumps({"iteration": step, **values}) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
