"""Which images a split of a data.yaml has, and where their label files are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex, is_image_name, name_parts
from d2_transfer.data.spec import YoloSpec
from d2_transfer.data.values import read_text

_SAME_SPLIT = {"val": "valid", "valid": "val"}


def split_images(spec: YoloSpec, content: Mapping[str, Any], findings: Findings) -> Iterator[Path]:
    """The image files of a split; those of a list may not exist.

    A folder or list that does not exist at its path is looked for beside the data.yaml.

    Args:
        spec: the data.yaml and the split; "val" and "valid" are the same.
        content: of the data.yaml.
        findings: gets names of a list that almost fit.

    Raises:
        FileNotFoundError: a folder or list of the split does not exist.
        ValueError: the data.yaml has no such split, or no path for it.
    """
    key = spec.split
    if content.get(key) is None and content.get(_SAME_SPLIT.get(key, "")) is not None:
        key = _SAME_SPLIT[key]
    places = content.get(key)
    if places is None:
        splits = [k for k in ("train", "val", "valid", "test") if content.get(k) is not None]
        raise ValueError(
            f"{spec.yaml} has no split {spec.split!r}; it has {', '.join(splits) or 'none'}"
        )
    folder = spec.yaml.parent
    base = folder / str(content.get("path") or "")
    bases = [base, folder] if base.is_dir() else [folder]
    for place in places if isinstance(places, list) else [places]:
        if not isinstance(place, str) or not place.strip():
            raise ValueError(f"{spec.yaml}: {key} is {places!r}; it must be paths")
        yield from _images_of(_resolve(spec, place.strip(), bases), bases, findings)


def _resolve(spec: YoloSpec, place: str, bases: Sequence[Path]) -> Path:
    """A folder or list that a data.yaml names, where it was moved together with it as well."""
    stated = PurePosixPath(place.replace("\\", "/"))
    parts = name_parts(place)
    tails = [PurePosixPath(*parts[start:]) for start in range(len(parts))]
    # Roboflow writes ../train/images for the folder train beside the file.
    for path in (stated, *(tail for tail in tails if len(tail.parts) > 1 or len(parts) == 1)):
        for version in (path, _swap_val(path)):
            for base in bases:
                if (base / version).exists():
                    return base / version
    raise FileNotFoundError(
        f"{spec.yaml}: {bases[0] / stated} of the split {spec.split!r} does not exist"
    )


def _swap_val(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(*(_SAME_SPLIT.get(part, part) for part in path.parts))


def _images_of(place: Path, bases: Sequence[Path], findings: Findings) -> Iterator[Path]:
    if place.is_dir():
        for folder, subfolders, files in os.walk(place, followlinks=True):
            subfolders[:] = sorted(
                sub for sub in subfolders if not sub.startswith(".") and sub != "__MACOSX"
            )
            for name in sorted(files):
                if not name.startswith(".") and is_image_name(name):
                    yield Path(folder, name)
        return
    index = FileIndex(bases[0])
    for line in read_text(place).lstrip("\ufeff").splitlines():
        if not (name := line.strip()):
            continue
        candidates = [base / name for base in (place.parent, *bases)]
        file = next((c for c in candidates if c.is_file()), None)
        if file is None:
            match = index.find(name)
            if match is not None:
                findings.mend("file name that almost fits", f"{place}: {name} -> {match.file.name}")
            file = candidates[0] if match is None else match.file
        yield Path(os.path.normpath(file))


def find_label_file(image: Path) -> Path | None:
    """The label file of an image, or None: in ``labels`` instead of ``images``, or beside it."""
    return next((file for file in label_files(image) if file.is_file()), None)


def label_files(image: Path | None) -> list[Path]:
    """Where the label file of an image may be, the usual place first."""
    assert image is not None
    parts = list(image.parts)
    places = [n for n, part in enumerate(parts[:-1]) if part.lower() == "images"]
    beside = image.with_suffix(".txt")
    if not places:
        return [beside]
    swapped = [
        Path(*parts[: places[-1]], labels, *parts[places[-1] + 1 :]).with_suffix(".txt")
        for labels in ("labels", "Labels")
    ]
    return [swapped[0], beside, swapped[1]]
