"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets as tv

from cwrgp.data.base import LabelledImages
from cwrgp.data.folders import open_folder, open_imagenet, open_tiny_imagenet
from cwrgp.data.shards import Shards

DATASETS = (
    "imagefolder",
    "cifar10",
    "cifar100",
    "stl10",
    "tiny_imagenet",
    "imagenet",
    "imagenet100",
    "webdataset",
)
SPLITS = ("pretrain", "train", "test")


class TorchvisionImages:
    """A torchvision data set whose images are in memory (CIFAR, STL-10).

    Args:
        dataset: gives (PIL image, label) and has ``labels`` or ``targets``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
        self.labels = np.asarray(labels, dtype=np.int64)
        if hasattr(dataset, "targets"):  # a list, which each worker would copy
            dataset.targets = self.labels

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> np.ndarray:
        return np.array(self.dataset[index][0].convert("RGB"))

    def name(self, index: int) -> str:
        return f"{type(self.dataset).__name__}[{index}]"


def _open_torchvision(
    name: str, factory: Callable[..., Any], root: str, **split: Any
) -> TorchvisionImages:
    try:
        return TorchvisionImages(factory(root, **split))
    except RuntimeError as error:  # torchvision's "Dataset not found or corrupted."
        download = f"{factory.__name__}({root!r}, download=True)"
        raise FileNotFoundError(
            f"{name} is not in {root}, or is damaged: looked for "
            f"{Path(root) / factory.base_folder}; get it with "  # type: ignore[attr-defined]
            f'python -c "from torchvision.datasets import {factory.__name__}; {download}"'
        ) from error


def build_dataset(
    name: str, root: str, split: str, *, classes: Sequence[str] = (), num_samples: int = 0
) -> LabelledImages | None:
    """Opens a data set. Nothing is downloaded.

    Args:
        name: one of :data:`DATASETS`.
        root: folder of the data set; for "webdataset" the source of :class:`Shards`.
        split: "pretrain", "train" (the labelled images that a probe learns from) or "test".
        classes: for "imagenet100": the wnids of its classes.
        num_samples: for "webdataset": number of samples in the shards; 0: not checked.

    Returns:
        The images, or None where an image folder or shards have no held-out part.

    Raises:
        ValueError: unknown name, no images, or a layout that is not the data set's.
        FileNotFoundError: files are missing. The message says which, where they were looked for,
            and how to get them.
    """
    if name not in DATASETS:
        raise ValueError(f"data set {name!r} is unknown; choose one of {', '.join(DATASETS)}")
    assert split in SPLITS, split
    if name == "cifar10":
        return _open_torchvision(name, tv.CIFAR10, root, train=split != "test")
    if name == "cifar100":
        return _open_torchvision(name, tv.CIFAR100, root, train=split != "test")
    if name == "stl10":
        part = "train+unlabeled" if split == "pretrain" else split
        return _open_torchvision(name, tv.STL10, root, split=part)
    if name == "tiny_imagenet":
        return open_tiny_imagenet(root, split)
    if name == "imagenet":
        return open_imagenet(root, split)
    if name == "imagenet100":
        return open_imagenet(root, split, classes)
    if name == "webdataset":
        return None if split == "test" else Shards(root, num_samples=num_samples)
    return open_folder(root, split)
