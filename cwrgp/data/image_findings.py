"""What is found about the files of a data set before it is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from cwrgp.comm import gather_objects, get_rank, get_world_size
from cwrgp.data.base import LabelledImages
from cwrgp.data.folders import ImageFolder
from cwrgp.data.pixel_range import InPixelRange
from cwrgp.data.subsets import ImageSubset
from cwrgp.image_check import inspect_images
from cwrgp.image_prints import fingerprints, repeated_images

MAX_COMPARED = 5000  # images; each is decoded, and each pair compared


@dataclass
class ImageFindings:
    """What is found about the files of a data set.

    Attributes:
        problems: index of an unreadable image -> `cwrgp.image_check.ImageFile.problem`.
        floating: indices of the images with floating-point or 32-bit values.
        sixteen: number of 16-bit images.
        largest: the largest value of all 16-bit images.
    """

    problems: dict[int, str] = field(default_factory=dict)
    floating: list[int] = field(default_factory=list)
    sixteen: int = 0
    largest: int = 0


def image_folder_of(images: LabelledImages) -> tuple[ImageFolder, np.ndarray] | None:
    """The image folder behind a data set, and which of its images the data set has, int64 (n,).

    None for shards and for images in memory, which have no files of their own.
    """
    if isinstance(images, ImageFolder):
        return images, np.arange(len(images))
    if isinstance(images, InPixelRange):
        return image_folder_of(images.images)
    if isinstance(images, ImageSubset):
        whole = image_folder_of(images.images)
        return None if whole is None else (whole[0], whole[1][images.indices])
    return None


def inspect_files(images: LabelledImages) -> ImageFindings:
    """Inspects the files of an image folder. Each process takes a part of its subfolders.

    Args:
        images: the same on every process.

    Returns:
        The same on every process; empty where there are no files.
    """
    mine = ImageFindings()
    whole = image_folder_of(images)
    if whole is not None:
        folder, indices = whole
        names = [folder.files[index] for index in indices]
        order = sorted(range(len(names)), key=names.__getitem__)
        groups = groupby(order, key=lambda number: os.path.dirname(names[number]))
        # The files of a subfolder share a file of the cache, which only one process should write.
        for turn, (_, members) in enumerate(groups):
            if turn % get_world_size() == get_rank():
                _inspect(folder.root, names, list(members), mine)
    parts = gather_objects(mine)
    return ImageFindings(
        problems={i: text for part in parts for i, text in part.problems.items()},
        floating=sorted(index for part in parts for index in part.floating),
        sixteen=sum(part.sixteen for part in parts),
        largest=max(part.largest for part in parts),
    )


def count_repeated(images: LabelledImages) -> tuple[int, int, int]:
    """How many of the first `MAX_COMPARED` files repeat an earlier one.

    Returns:
        Numbers of files that were compared, of equal ones and of those that look nearly the same.
    """
    whole = image_folder_of(images)
    if whole is None:
        return 0, 0, 0
    folder, indices = whole
    files = [folder.root / folder.files[index] for index in np.sort(indices)[:MAX_COMPARED]]
    found = fingerprints(files)
    prints = [value for file in files if (value := found[file]) is not None]
    equal, similar = repeated_images(prints)
    return len(prints), int(equal.sum()), int(similar.sum())


def _inspect(
    root: Path, names: Sequence[str], members: Sequence[int], findings: ImageFindings
) -> None:
    found = inspect_images([root / names[index] for index in members])
    for index in members:
        image = found[root / names[index]]
        if image.problem:
            findings.problems[index] = image.problem
        elif image.kind == "float":
            findings.floating.append(index)
        elif image.kind == "16-bit":
            findings.sixteen += 1
            findings.largest = max(findings.largest, image.max_value or 0)
