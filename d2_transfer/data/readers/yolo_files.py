"""Which images a split of a data.yaml has, and where their label files are."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cwrgp.image_files import files_below
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex, is_image_name, name_parts
from d2_transfer.data.spec import YoloSpec
from d2_transfer.data.values import as_number, read_text

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
        yield from (Path(file) for file in sorted(files_below(place)) if is_image_name(file))
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


class LabelIndex:
    """The label files of images, whose names may differ in case and in Unicode's normal form."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}
        self._used: set[Path] = set()

    def find(self, image: Path) -> Path | None:
        """The label file of an image, or None: the first of `label_files` that exists.

        p0.png.txt is one for p0.png too.
        """
        for file in label_files(image):
            names = self._names(file.parent)
            for name in (file.name, f"{image.name}.txt"):
                found = file if name == file.name and file.is_file() else names.get(_fold(name))
                if found is not None:
                    self._used.add(found)
                    return found
        return None

    def unused(self) -> list[Path]:
        """Files of labels without an image, in the folders of those that were found."""
        folders = {file.parent for file in self._used}
        files = [file for folder in folders for file in self._names(folder).values()]
        return sorted(file for file in files if file not in self._used and _has_labels(file))

    def _names(self, folder: Path) -> dict[str, Path]:
        if folder not in self._folders:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            self._folders[folder] = {
                _fold(file.name): file
                for file in files
                if file.suffix.lower() == ".txt" and not file.name.startswith(".")
            }
        return self._folders[folder]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _has_labels(file: Path) -> bool:
    """Whether a text has rows of numbers, unlike classes.txt and lists of images."""
    try:
        rows = [line.replace(",", " ").split() for line in read_text(file).splitlines()]
    except ValueError:
        return False
    row = next(filter(None, rows), [])
    return len(row) >= 5 and None not in map(as_number, row)


def label_files(image: Path | None) -> list[Path]:
    """Where the label file of an image may be, the usual place first.

    In ``labels`` instead of ``images``, beside it, or in a folder ``labels`` beside its own.
    """
    assert image is not None
    parts = list(image.parts)
    places = [n for n, part in enumerate(parts[:-1]) if part.lower() in ("images", "jpegimages")]
    beside = image.with_suffix(".txt")
    if places:
        swapped = [
            Path(*parts[: places[-1]], labels, *parts[places[-1] + 1 :]).with_suffix(".txt")
            for labels in ("labels", "Labels")
        ]
        return [swapped[0], beside, swapped[1]]
    folder = image.parent
    return [
        beside,
        folder.parent / "labels" / beside.name,  # imgs/p0.png
        folder.parent / "labels" / folder.name / beside.name,  # train/p0.png
        folder.parent.parent / "labels" / folder.name / beside.name,  # imgs/train/p0.png
    ]
