"""metrics.json: a JSON object a line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a ``metrics.json``; a last line that a kill cut short is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records
