"""Data sets of images and labels, what skips broken files, and the views of an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets as tv

from cwrgp.seeding import derive_seed

# What Pillow raises for a file that is not the image it claims to be (UnidentifiedImageError is an
# OSError).
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


class LabelledImages(Protocol):
    """Images by number, with an integer label each (-1: none)."""

    labels: list[int]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image, RGB. Raises OSError where it cannot be read."""

    def name(self, index: int) -> str:
        """What to call the image in a message."""


class ImageFolder:
    """All images below a folder; the first level of subfolders, where there is one, gives the
    labels.

    Args:
        root: the folder.
        classes: the names of the classes in the order of their labels; None: the sorted names of
            the subfolders.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image below it, or a subfolder that is not among ``classes``.
    """

    def __init__(self, root: str | os.PathLike[str], classes: Sequence[str] | None = None) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"image folder {self.root} does not exist; set DATA.ROOT (EVAL.ROOT) to one"
            )
        # Sorted relative names: the same order on every machine and file system.
        self.files = sorted(os.path.relpath(path, self.root) for path in _image_files(self.root))
        if not self.files:
            raise ValueError(
                f"image folder {self.root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        tops = [parts[0] if len(parts := Path(file).parts) > 1 else None for file in self.files]
        found = sorted({top for top in tops if top is not None})
        self.classes = list(found if classes is None else classes)
        if None in tops or (classes is None and len(found) < 2):
            self.classes = []
        elif unknown := sorted(set(found) - set(self.classes)):
            raise ValueError(
                f"{self.root} has the class {unknown[0]}, which the training images have not; "
                f"theirs are {', '.join(self.classes) or 'none'}"
            )
        number = {name: label for label, name in enumerate(self.classes)}
        self.labels = [number.get(str(top), -1) for top in tops]

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Image.Image:
        with Image.open(self.root / self.files[index]) as image:
            if image.mode in ("I", "F"):  # their range is anybody's guess
                raise OSError(f"{self.name(index)}: 32 bits a pixel are not supported, 8 or 16 are")
            if image.mode.startswith("I;16"):  # which convert would cut off at 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])


class TorchvisionImages:
    """A torchvision data set whose images are in memory (CIFAR, STL-10)."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
        self.labels = [int(label) for label in labels]

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Image.Image:
        return self.dataset[index][0].convert("RGB")

    def name(self, index: int) -> str:
        return f"{type(self.dataset).__name__}[{index}]"


def _image_files(root: Path) -> Iterator[str]:
    """The images below a folder, behind links too; a link that leads in a circle ends there."""
    places: dict[str, frozenset[tuple[int, int]]] = {}  # of a folder and those above it
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        above = places.get(os.path.dirname(folder), frozenset())
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in above:  # a link to a folder that it is in
            subfolders.clear()
            continue
        places[folder] = above | {place}
        for file in files:
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                yield os.path.join(folder, file)


def _folder(root: str, split: str) -> ImageFolder | None:
    """``root/train`` and ``root/val`` (or ``test``) where there is a ``train``, else all of it."""
    base = Path(root).expanduser()
    if not (base / "train").is_dir():
        return None if split == "test" else ImageFolder(base)
    for other in sorted(base.iterdir()):
        known = other.name in ("train", "val", "test")
        if other.is_dir() and not known and next(_image_files(other), None) is not None:
            raise ValueError(
                f"DATA.ROOT {base} has images in train and in {other.name}: is train a split or a "
                f"class? Move {other.name} elsewhere, or rename train"
            )
    train = ImageFolder(base / "train")
    if split != "test":
        return train
    held_out = [base / name for name in ("val", "test") if (base / name).is_dir()]
    return ImageFolder(held_out[0], train.classes) if held_out else None


def _cifar(factory: Callable[..., Any]) -> Callable[[str, str], TorchvisionImages]:
    return lambda root, split: TorchvisionImages(factory(root, train=split != "test"))


def _stl10(root: str, split: str) -> TorchvisionImages:
    names = {"pretrain": "train+unlabeled", "train": "train", "test": "test"}
    return TorchvisionImages(tv.STL10(root, split=names[split]))


DATASETS: dict[str, Callable[[str, str], LabelledImages | None]] = {
    "imagefolder": _folder,
    "cifar10": _cifar(tv.CIFAR10),
    "cifar100": _cifar(tv.CIFAR100),
    "stl10": _stl10,
}


def build_dataset(name: str, root: str, split: str) -> LabelledImages | None:
    """Opens a data set that is on disk; nothing is downloaded.

    Args:
        name: a key of :data:`DATASETS`.
        root: folder of the data set.
        split: "pretrain", "train" (the labelled images that a probe learns from) or "test".

    Returns:
        The images, or None where an image folder has no held-out part.

    Raises:
        ValueError: unknown name, no images.
        FileNotFoundError: not there.
    """
    if name not in DATASETS:
        raise ValueError(f"DATA.NAME {name!r} is unknown; choose one of {list(DATASETS)}")
    try:
        return DATASETS[name](root, split)
    except RuntimeError as error:  # torchvision's "Dataset not found or corrupted."
        raise FileNotFoundError(f"{name} is not in DATA.ROOT {root}: {error}") from error


class UnreadableImages:
    """Counts the images that cannot be read, across the workers of this process.

    Args:
        size: number of images.
        limit: how many may be skipped.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.limit = limit
        # One flag for each image: idempotent, so that workers need no lock.
        self._flags = torch.zeros(size, dtype=torch.bool).share_memory_()

    def add(self, index: int) -> None:
        self._flags[index] = True

    def __len__(self) -> int:
        return int(self._flags.sum())

    def check(self, dataset: LabelledImages) -> None:
        """Raises ValueError when more than the limit were met, naming the first."""
        if not len(self):
            return
        first = dataset.name(int(self._flags.nonzero()[0]))
        if len(self) == len(dataset):
            raise ValueError(f"none of the {len(dataset)} images can be read; the first is {first}")
        if len(self) > self.limit:
            raise ValueError(
                f"{len(self)} of {len(dataset)} images cannot be read, more than "
                f"DATA.MAX_UNREADABLE {self.limit}; the first is {first}"
            )


class Views(Dataset):
    """V random views of an image, a pure function of (seed, epoch, index).

    An image that cannot be read is replaced by the next one that can, and counted.

    Args:
        dataset: the images.
        transform: PIL image -> uint8 (3, H, W); draws from torch's default generator.
        num_views: V.
        seed: the run's.
        max_unreadable: how many images may be skipped.
    """

    def __init__(
        self,
        dataset: LabelledImages,
        transform: Callable[[Image.Image], Tensor],
        *,
        num_views: int,
        seed: int,
        max_unreadable: int = 0,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.num_views = num_views
        self.seed = seed
        self.unreadable = UnreadableImages(len(dataset), max_unreadable)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        epoch, index = key
        image = self._load(index)
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would touch CUDA in every worker.
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
            return [self.transform(image) for _ in range(self.num_views)]

    def _load(self, index: int) -> Image.Image:
        for shift in range(len(self.dataset)):
            candidate = (index + shift) % len(self.dataset)
            try:
                return self.dataset.load(candidate)
            except UNREADABLE:
                self.unreadable.add(candidate)
                self.unreadable.check(self.dataset)
        raise AssertionError("the check above lets no data set pass of which nothing can be read")
