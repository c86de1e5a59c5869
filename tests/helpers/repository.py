"""Where the files are that the tests run and read."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
