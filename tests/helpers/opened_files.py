"""Counts how often Python code opens files."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_counters: list[Counter[Path]] = []


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _counters and isinstance(arguments[0], str | os.PathLike):
        for counter in _counters:
            counter[Path(arguments[0])] += 1


sys.addaudithook(_count)  # stays for the whole process


@contextmanager
def opened_files() -> Iterator[Counter[Path]]:
    """Yields path -> how often it was opened since; native code that maps a file is not seen."""
    counter: Counter[Path] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)
