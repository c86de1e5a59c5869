"""Image folders, and the data sets that are released as image folders."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cwrgp.data.string_array import StringArray
from cwrgp.image_files import describe_suffixes, files_below, image_files, is_image
from cwrgp.images import IMAGE_SUFFIXES, is_hidden

IMAGENET_PAGE = "https://image-net.org/download-images (ILSVRC2012, needs an account)"
TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


class ImageFolder:
    """All images below a folder. The first level of subfolders, if there is one, is the label.

    Images beside the class folders have no label (-1). Hidden files and folders
    (`cwrgp.images.is_hidden`) are neither images nor classes.

    Args:
        root: the folder.
        classes: names of the classes in the order of their labels; None: the sorted names of the
            subfolders.
        only: the subfolders to read; None: all.

    Attributes:
        skipped: suffix -> number of files that are no images by their suffix.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image below it, or a subfolder that is not among ``classes``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        *,
        only: Sequence[str] | None = None,
    ) -> None:
        self.root = Path(os.path.expanduser(root))
        if not self.root.is_dir():
            problem = "is a file" if self.root.exists() else "does not exist"
            raise FileNotFoundError(f"image folder {self.root} {problem}")
        places = [self.root] if only is None else [self.root / name for name in only]
        # Sorted relative names: the same order on every machine and file system.
        files = []
        self.skipped: Counter[str] = Counter()
        for path in (path for place in places for path in files_below(place)):
            if is_image(path):
                files.append(os.path.relpath(path, self.root))
            else:
                self.skipped[os.path.splitext(path)[1].lower()] += 1
        files.sort()
        if not files:
            others = f"; there are files of {describe_suffixes(self.skipped)}"
            raise ValueError(
                f"image folder {self.root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
                + (others if self.skipped else "")
            )
        self.files = StringArray(files)
        tops = [parts[0] if len(parts := Path(file).parts) > 1 else None for file in files]
        found = sorted({top for top in tops if top is not None})
        self.classes = list(found if classes is None else classes)
        if classes is None and len(found) < 2:
            self.classes = []  # a single folder is no class
        elif unknown := sorted(set(found) - set(self.classes)):
            raise ValueError(
                f"{self.root} has the class {unknown[0]}, which the training images do not have; "
                f"their classes are {', '.join(self.classes) or 'none'}"
            )
        number: dict[str | None, int] = {name: i for i, name in enumerate(self.classes)}
        self.labels = np.array([number.get(top, -1) for top in tops], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        return (self.root / self.files[index]).read_bytes()

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])


def _subfolders(root: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, in the order of their names."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def open_folder(root: str, split: str) -> ImageFolder | None:
    """``root/train`` and ``root/val`` (or ``test``) where there is a ``train``, else all of it.

    Raises:
        ValueError: there are images beside ``train`` and the held-out folders.
    """
    base = Path(root).expanduser()
    if not (base / "train").is_dir():
        return None if split == "test" else ImageFolder(base)
    for other in _subfolders(base):
        known = other.name in ("train", "val", "test")
        if not known and next(image_files(other), None) is not None:
            raise ValueError(
                f"image folder {base} has images in train and in {other.name}: is train a split or "
                f"a class? Move {other.name} elsewhere, or rename train"
            )
    train = ImageFolder(base / "train")
    if split != "test":
        return train
    held_out = [base / name for name in ("val", "test") if (base / name).is_dir()]
    return ImageFolder(held_out[0], train.classes) if held_out else None


def open_imagenet(root: str, split: str, wnids: Sequence[str] | None = None) -> ImageFolder:
    """ImageNet, or the classes ``wnids`` of it: ``root/train/<wnid>`` and ``root/val/<wnid>``.

    Raises:
        FileNotFoundError: a folder is missing. The message says which, and where to get the images.
    """
    base = Path(root).expanduser()
    folders = {"pretrain": "train", "train": "train", "test": "val"}
    place = base / folders[split]
    have = {path.name for path in _subfolders(place)} if place.is_dir() else set()
    if not have:
        flat = place.is_dir() and next(image_files(place), None) is not None
        raise FileNotFoundError(
            f"ImageNet is not in {base}: looked for {place}/<wnid>/*.JPEG"
            + (
                ", but its images are not in class folders; sort them with torchvision: "
                f'python -c "from torchvision.datasets import ImageNet; '
                f"ImageNet('{base}', '{folders[split]}')\", where the archives are"
                if flat
                else f"; get it from {IMAGENET_PAGE}"
            )
        )
    if missing := sorted(set(wnids or ()) - have):
        raise FileNotFoundError(
            f"the class list has {len(wnids or ())} classes, of which {len(missing)} are not in "
            f"{place}: {', '.join(missing[:3])}"
        )
    if split != "test":
        return ImageFolder(place, only=wnids)
    return ImageFolder(place, _names(base / "train", wnids), only=wnids)


def read_class_list(path: str) -> list[str]:
    """The names of classes in a file, one per line, in the order of their labels.

    Raises:
        ValueError: no file is named, it has fewer than two names, or a name twice.
        FileNotFoundError: no such file.
    """
    if not path:
        raise ValueError(
            "the class list is not set; imagenet100 needs a file with the wnids of its classes, one"
            " per line"
        )
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"class list {path}: no such file (wnids, one per line)")
    lines = Path(path).expanduser().read_text().splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"class list {path} has the class {twice[0]} more than once")
    if len(names) < 2:
        raise ValueError(f"class list {path} has {len(names)} classes; it needs two or more")
    return sorted(names)


def open_tiny_imagenet(root: str, split: str) -> ImageFolder:
    """Tiny-ImageNet as it is released: ``train/<wnid>/images`` and ``val/val_annotations.txt``.

    Raises:
        FileNotFoundError: files are missing. The message says which, and how to get them.
        ValueError: an image of ``val`` without annotation, or of an unknown class.
    """
    base = Path(root).expanduser()
    if (base / "tiny-imagenet-200").is_dir():
        base = base / "tiny-imagenet-200"
    annotations = base / "val" / "val_annotations.txt"
    for path in (base / "train", base / "val" / "images", annotations):
        if not path.exists():
            raise FileNotFoundError(
                f"Tiny-ImageNet is not in {root}: looked for {path}; get it with "
                f"curl -O {TINY_IMAGENET_URL} && unzip -q tiny-imagenet-200.zip"
            )
    if split != "test":
        return ImageFolder(base / "train")
    with open(annotations, newline="") as file:
        wnid = {row[0]: row[1] for row in csv.reader(file, delimiter="\t") if len(row) > 1}
    images = ImageFolder(base / "val" / "images")
    images.classes = _names(base / "train")
    number = {name: label for label, name in enumerate(images.classes)}
    for file_name in images.files:
        if wnid.get(file_name) not in number:
            raise ValueError(
                f"{annotations} gives {file_name} the class {wnid.get(file_name, 'of nothing')}, "
                f"which {base / 'train'} does not have; unpack the archive again"
            )
    labels = [number[wnid[file_name]] for file_name in images.files]
    images.labels = np.array(labels, dtype=np.int64)
    return images


def _names(train: Path, only: Sequence[str] | None = None) -> list[str]:
    """The classes of the training images, without listing every image."""
    if not train.is_dir():
        raise FileNotFoundError(f"folder {train}, which names the classes, does not exist")
    return [
        path.name
        for path in _subfolders(train)
        if (only is None or path.name in only) and next(image_files(path), None) is not None
    ]
