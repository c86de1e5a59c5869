"""Synthetic photographs: smooth shapes with edges, saturated colours and noise; no files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image with gradients, sharp edges, grey and saturated regions, and sensor noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(1, max(2, width // 2)), rng.integers(1, max(2, height // 2))
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    draw.rectangle((0, 0, width // 8, height // 8), fill=(255, 255, 255))
    draw.rectangle((0, height // 8, width // 8, height // 4), fill=(0, 0, 0))
    noise = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """A JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def differences(a: np.ndarray | Image.Image, b: np.ndarray | Image.Image) -> np.ndarray:
    """Grey levels between two images, int64 (H, W, 3)."""
    x, y = np.asarray(a).astype(int), np.asarray(b).astype(int)
    assert x.shape == y.shape, (x.shape, y.shape)
    return abs(x - y)
