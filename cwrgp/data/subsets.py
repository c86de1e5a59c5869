"""Subsets of a data set of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from cwrgp.data.base import LabelledImages
from cwrgp.seeding import Stream, derive_seed


class ImageSubset:
    """A part of a data set, with indices of its own.

    Args:
        images: the data set.
        indices: of the images in the subset.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int] | np.ndarray) -> None:
        self.images = images
        self.indices = np.asarray(indices, dtype=np.int64)
        self.labels = images.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Image.Image:
        return self.images.load(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.images.name(int(self.indices[index]))


def sample_indices(size: int, limit: int, stream: Stream, seed: int) -> list[int]:
    """Samples ``limit`` of ``size`` indices without replacement, in random order.

    With one seed, a smaller sample is the beginning of a larger one.

    Args:
        size: number of indices.
        limit: size of the sample.
        stream: the purpose of the sample.
        seed: the run's.

    Returns:
        All indices in ascending order where the limit is 0 or not below the size.
    """
    if not 0 < limit < size:
        return list(range(size))
    generator = torch.Generator().manual_seed(derive_seed(stream, seed, size))
    return torch.randperm(size, generator=generator)[:limit].tolist()


def class_balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> list[int]:
    """Samples the same share of every class.

    A class of n images gives round(fraction * n) of them and at least one. With one seed, the
    images of a smaller fraction are among those of a larger one.

    Args:
        labels: int64 (n,); images of label -1 (none) are omitted.
        fraction: in (0, 1].
        seed: of the sample.

    Returns:
        Indices in ascending order.

    Raises:
        ValueError: the fraction is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} is outside (0, 1]")
    of = torch.as_tensor(labels)
    chosen: list[int] = []
    for label in of[of >= 0].unique().tolist():
        members = (of == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(Stream.LABEL_SUBSET, seed, label))
        order = torch.randperm(len(members), generator=generator)
        chosen += members[order[: max(1, round(fraction * len(members)))]].tolist()
    return sorted(chosen)
