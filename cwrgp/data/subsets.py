"""Subsets of a data set of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

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

    def read(self, index: int) -> bytes | np.ndarray:
        return self.images.read(int(self.indices[index]))

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


def class_balanced_subset(
    labels: np.ndarray, fraction: float, seed: int, *, equal_counts: bool = False
) -> list[int]:
    """Samples the same share, or the same number, of every class.

    With one seed, the images of a smaller fraction are among those of a larger one.

    Args:
        labels: int64 (n,); images of label -1 (none) are omitted.
        fraction: in (0, 1].
        seed: of the sample.
        equal_counts: False: a class of m images gives round(fraction * m) of them, at least one.
            True: the sample has floor(fraction * n) images, divided equally among the classes; the
            remainder goes to random classes, one each. The 1 % and 10 % subsets of ImageNet that
            were published with SimCLR (Chen et al., 2020) are of this kind, with 12,811 and
            128,116 images.

    Returns:
        Indices in ascending order.

    Raises:
        ValueError: the fraction is outside (0, 1], or a class has fewer images than the sample
            needs.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction} is outside (0, 1]")
    of = torch.as_tensor(labels)
    classes, sizes = of[of >= 0].unique(return_counts=True)
    counts = [max(1, round(fraction * size)) for size in sizes.tolist()]
    if equal_counts:
        counts = _equal_counts(int(fraction * int(sizes.sum())), len(classes), seed)
    chosen: list[int] = []
    for label, count in zip(classes.tolist(), counts, strict=True):
        members = (of == label).nonzero().flatten()
        if count > len(members):
            raise ValueError(
                f"class {label} has {len(members)} images, fewer than the {count} of each class "
                f"that fraction {fraction} with equal counts needs"
            )
        generator = torch.Generator().manual_seed(derive_seed(Stream.LABEL_SUBSET, seed, label))
        chosen += members[torch.randperm(len(members), generator=generator)[:count]].tolist()
    return sorted(chosen)


def _equal_counts(total: int, num_classes: int, seed: int) -> list[int]:
    """``total`` divided among the classes; the remainder goes to random ones."""
    generator = torch.Generator().manual_seed(derive_seed(Stream.LABEL_SUBSET, seed))
    order = torch.randperm(num_classes, generator=generator)
    count, remainder = divmod(total, num_classes)
    return (count + (order < remainder).long()).tolist()
