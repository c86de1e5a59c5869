"""Subsets of a data set of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from cwrgp.data.base import LabelledImages
from cwrgp.seeding import derive_seed


class SomeImages:
    """Some images of a data set, numbered anew.

    Args:
        images: all of them.
        indices: of those that are here.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = list(indices)
        self.labels = [images.labels[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Image.Image:
        return self.images.load(self.indices[index])

    def name(self, index: int) -> str:
        return self.images.name(self.indices[index])


def draw(size: int, limit: int, seed: int) -> list[int]:
    """The numbers of ``limit`` images of ``size``, in random order; of all, as they are, where the
    limit is 0 or not below the size.

    For one seed a smaller draw is part of a larger one.
    """
    if not 0 < limit < size:
        return list(range(size))
    generator = torch.Generator().manual_seed(derive_seed(seed, size))
    return torch.randperm(size, generator=generator)[:limit].tolist()


def class_balanced_subset(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Draws the same share of every class.

    A class of n images gives round(fraction * n) of them and at least one. For one seed, a smaller
    fraction's images are among a larger one's.

    Args:
        labels: of all images; -1 (none) is left out.
        fraction: in (0, 1].
        seed: of the draw.

    Returns:
        Numbers of the images, rising.

    Raises:
        ValueError: the fraction is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"EVAL.FINETUNE.FRACTION {fraction} is outside (0, 1]")
    of = torch.tensor(labels, dtype=torch.long)
    chosen: list[int] = []
    for label in of[of >= 0].unique().tolist():
        members = (of == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(seed, label))
        order = torch.randperm(len(members), generator=generator)
        chosen += members[order[: max(1, round(fraction * len(members)))]].tolist()
    return sorted(chosen)
