"""The mean and standard deviation that a network's input is normalised with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from cwrgp.images import IMAGENET_MEAN, IMAGENET_STD

MEAN_KEY, STD_KEY = "pixel_mean", "pixel_std"  # in converted files
TOLERANCE = 0.005  # relative; publishers round differently, such as 0.228 and 0.229


@dataclass(frozen=True)
class PixelStatistics:
    """Normalisation of RGB images: (pixel - mean) / std, as Detectron2's ``pixel_mean``.

    Attributes:
        mean: of the red, green and blue channel, in units of 0..255.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def agrees_with(self, other: PixelStatistics) -> bool:
        """Whether both are the same within `TOLERANCE`."""
        mine, others = (*self.mean, *self.std), (*other.mean, *other.std)
        return len(mine) == len(others) and all(
            math.isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(mine, others, strict=True)
        )

    def as_metadata(self) -> dict[str, list[float]]:
        """What a converted file states."""
        return {MEAN_KEY: list(self.mean), STD_KEY: list(self.std)}

    def __str__(self) -> str:
        return f"mean {list(self.mean)}, std {list(self.std)} (RGB, 0..255)"


def from_unit_range(mean: Sequence[float], std: Sequence[float]) -> PixelStatistics:
    """Statistics in units of 0..1, as torchvision's transforms have them."""
    return PixelStatistics(_scaled(mean), _scaled(std))


def read_metadata(content: Mapping[str, Any]) -> PixelStatistics | None:
    """The statistics in a converted file; None if it states none.

    Args:
        content: what `cwrgp.checkpoints.reader.read_checkpoint` returns. The metadata of a
            safetensors file are texts, here JSON.

    Raises:
        ValueError: they are not three numbers each.
    """
    if MEAN_KEY not in content and STD_KEY not in content:
        return None
    values = {}
    for key in (MEAN_KEY, STD_KEY):
        value = content.get(key)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not is_three_numbers(value):
            raise ValueError(f"{key} is {content.get(key)!r}, not a list of three numbers")
        values[key] = tuple(map(float, value))
    return PixelStatistics(values[MEAN_KEY], values[STD_KEY])


def is_three_numbers(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether a value is a list of three finite numbers."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(v) in (int, float) and math.isfinite(v) for v in value)
    )


def _scaled(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(255 * value, 4) for value in values)


IMAGENET = from_unit_range(IMAGENET_MEAN, IMAGENET_STD)
