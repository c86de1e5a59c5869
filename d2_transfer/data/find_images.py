"""Which file each annotated image is."""

from __future__ import annotations

import os
from itertools import pairwise

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex, Match, folded_parts


def find_images(data: AnnotatedData, findings: Findings) -> None:
    """Sets the file of each image, in place; two names of one file become one image.

    Where no file fits, ``file`` is the place at which the image should be.

    Args:
        data: with ``image_root``, or with files.
        findings: gets the names that almost fit, and images listed twice.

    Raises:
        FileNotFoundError: the folder of the images does not exist.
        ValueError: a name fits several files, or two names fit one file that both could mean.
    """
    open_images = [image for image in data.images if image.file is None]
    if open_images:
        _find_files(data, open_images, findings)
    by_file: dict[str, AnnotatedImage] = {}
    for image in data.images:
        key = os.path.abspath(image.file or image.name)
        first = by_file.setdefault(key, image)
        if first is not image:
            first.unite(image)
            findings.mend("image listed twice, its annotations united", image.place)
    data.images = list(by_file.values())


def _find_files(data: AnnotatedData, images: list[AnnotatedImage], findings: Findings) -> None:
    root = data.image_root
    if root is None or not root.is_dir():
        raise FileNotFoundError(f"{data.source}: the folder of its images, {root}, does not exist")
    index = FileIndex(root)
    claims: dict[str, list[tuple[AnnotatedImage, Match]]] = {}
    for image in images:
        if not image.name:
            raise ValueError(f"{image.place} has no file_name")
        image.file = root / image.name
        match = _find(index, image)
        if match is not None:
            claims.setdefault(os.path.abspath(match.file), []).append((image, match))
    for claim in claims.values():
        for image, match in _settle(claim):
            image.file = match.file
            if not match.exact:
                findings.mend(
                    "file name that almost fits",
                    f"{image.place}: {image.name} -> {match.file.name}",
                )


def _find(index: FileIndex, image: AnnotatedImage) -> Match | None:
    try:
        match = index.find(image.name)
    except ValueError:
        # Of p0.jpg and p0.png, the other name may say which.
        match = index.find(image.other_name) if image.other_name else None
        if match is None:
            raise
    if match is None and image.other_name:
        match = index.find(image.other_name)
    return match


def _settle(claim: list[tuple[AnnotatedImage, Match]]) -> list[tuple[AnnotatedImage, Match]]:
    """The images that a file belongs to: one, or entries of the same image."""
    if len(claim) == 1:
        return claim
    strong = [(image, match) for image, match in claim if not match.weak]
    if not strong:
        strong = claim
    names = sorted((folded_parts(image.name) for image, _ in strong), key=len)
    for shorter, longer in pairwise(names):
        if longer[len(longer) - len(shorter) :] != shorter:
            first, second = strong[0][0], strong[1][0]
            raise ValueError(
                f"{first.place} and {second.place}: {first.name!r} and {second.name!r} both fit"
                f" {strong[0][1].file} only, and may be two images"
            )
    return strong
