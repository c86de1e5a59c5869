"""A sequence of strings that the workers of a loader share instead of copying."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np


class StringArray(Sequence[str]):
    """Strings in one array of bytes.

    A worker that reads a list of strings writes the reference count of each string that it reads,
    which copies the memory pages of the list into the worker. Two arrays have two counts.

    Args:
        strings: file names or other text, without surrogates other than those of ``os.fsdecode``.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(string) for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        self._ends = np.concatenate([np.zeros(1, dtype=np.int64), lengths.cumsum()])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        position = range(len(self))[index]  # an IndexError ends the iteration of a Sequence
        start, end = self._ends[position], self._ends[position + 1]
        return os.fsdecode(self._bytes[start:end].tobytes())
