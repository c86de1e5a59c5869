"""The files that an analysis ends in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwrgp.file_io.atomic import write_text


def write_outputs(folder: Path, results: Mapping[str, Any], command: str) -> None:
    """Writes results.json."""
    write_text(folder / "results.json", json.dumps(results, indent=1))
