"""Small images that the tests make themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int, *, seed: int = 0, side: int = 40) -> None:
    """Writes ``count`` random PNG files, smooth enough to be told apart after a crop."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The content of a file in one of Pillow's formats, such as "PNG"."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
