"""Image files that a user has listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


class ListedImages:
    """Image files in a given order. The label of an image is its number.

    Args:
        files: the images.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.labels = np.arange(len(files))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        return self.files[index].read_bytes()

    def name(self, index: int) -> str:
        return str(self.files[index])
