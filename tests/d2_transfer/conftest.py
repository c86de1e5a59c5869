"""Tiny detection data in COCO and in VOC form, and converted encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import own_checkpoint
from PIL import Image

from d2_transfer.conversion import convert_file

CLASSES = ("square", "bar")
SIDE = 64  # px


class Scenes:
    """Six images of 64 px with one or two rectangles each, the same in COCO and in VOC form.

    Attributes:
        root: folder; ``coco.json`` and ``JPEGImages`` are the COCO form, the whole is the VOC form.
        boxes: for every image (x, y, width, height, class) of its objects, in pixels from 0.
        voc_metrics: what a run reports on the VOC form.
    """

    voc_metrics = frozenset(
        [f"{table}/{m}" for table in ("bbox", "voc07", "voc10") for m in ("AP", "AP50", "AP75")]
        + [f"coco/{m}" for m in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AP-square", "AP-bar")]
    )

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.root = root
        self.boxes: dict[str, list[tuple[int, int, int, int, int]]] = {}
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / folder).mkdir(parents=True)
        for number in range(6):
            name = f"{number:06d}"
            pixels = rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
            self.boxes[name] = []
            for label in (0, 1)[: 1 + number % 2]:
                width, height = (20, 20) if label == 0 else (28, 10)
                x, y = int(rng.integers(0, 30)), (4 if label == 0 else 40)
                pixels[y : y + height, x : x + width] = (
                    (220, 40, 40) if label == 0 else (30, 60, 220)
                )
                self.boxes[name].append((x, y, width, height, label))
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
            (root / "Annotations" / f"{name}.xml").write_text(self._xml(self.boxes[name]))
        (root / "ImageSets" / "Main" / "all.txt").write_text("\n".join(self.boxes) + "\n")
        (root / "ImageSets" / "Main" / "one.txt").write_text("000000\n")
        (root / "coco.json").write_text(json.dumps(self._coco()))

    def coco(self, name: str, json_file: Path | None = None) -> dict[str, Any]:
        """An entry of DATASETS.CUSTOM."""
        path = json_file or self.root / "coco.json"
        images = self.root / "JPEGImages"
        return {"NAME": name, "FORMAT": "coco", "JSON": str(path), "IMAGES": str(images)}

    def voc(self, name: str, split: str = "all", **more: Any) -> dict[str, Any]:
        """An entry of DATASETS.CUSTOM."""
        entry = {"NAME": name, "FORMAT": "voc", "ROOT": str(self.root), "SPLIT": split}
        return {**entry, "CLASSES": list(CLASSES), **more}

    def _coco(self) -> dict[str, Any]:
        images, annotations = [], []
        for name, boxes in self.boxes.items():
            number = int(name) + 1
            images.append({"id": number, "file_name": f"{name}.png", "height": SIDE, "width": SIDE})
            for x, y, w, h, label in boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": 10 * (label + 1),  # not contiguous, as in COCO itself
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
        categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(CLASSES)]
        return {"images": images, "annotations": annotations, "categories": categories}

    @staticmethod
    def _xml(boxes: list[tuple[int, int, int, int, int]]) -> str:
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h, label in boxes
        )
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
        return f"<annotation>{size}{objects}</annotation>"


@pytest.fixture(autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found about the images of a test stays out of the user's cache."""
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """The data set; not to be changed."""
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def own_scenes(tmp_path: Path) -> Scenes:
    """The data set in a folder that the test may change."""
    return Scenes(tmp_path / "scenes")


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 in the layout of this project's pretraining."""
    path = tmp_path_factory.mktemp("pretrained") / "model_final.pth"
    torch.save(own_checkpoint(18), path)
    return path


@pytest.fixture(scope="session")
def encoder_file(checkpoint_file: Path) -> Path:
    """The same, converted."""
    path = checkpoint_file.with_name("encoder.pkl")
    convert_file(checkpoint_file, path)
    return path
