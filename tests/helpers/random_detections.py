"""Random annotations and detections, with crowds, ties, gaps in ids and empty classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from d2_transfer.data.findings import Findings
from d2_transfer.data.readers.voc import read_voc_data
from d2_transfer.data.spec import VocSpec
from d2_transfer.scoring.voc import VocObject

CATEGORIES = [{"id": i, "name": name} for i, name in ((3, "a"), (8, "b"), (9, "c"), (40, "none"))]


def polygon(box: np.ndarray) -> list[list[float]]:
    x, y, w, h = box.tolist()
    return [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h * 0.7, x, y + h]]


def write_coco(folder: Path, *, first_id: int = 1, text_ids: bool = False, seed: int = 0) -> str:
    """Forty images of 200 px with crowds, gaps in the ids, and a class without an object."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(40):
        image = f"image {number}" if text_ids else 3 * number + 1
        images.append({"id": image, "file_name": f"{number}.jpg", "height": 200, "width": 200})
        for _ in range(rng.integers(0, 7)):
            box = np.concatenate([rng.uniform(0, 120, 2), rng.uniform(3, 80, 2)]).round(1)
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": image,
                    "category_id": int(rng.choice([3, 8, 9])),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                    "segmentation": polygon(box),
                }
            )
            if rng.random() < 0.1:
                runs = [200 * 20, 3000, 200 * 200 - 200 * 20 - 3000]
                annotations[-1] |= {
                    "iscrowd": 1,
                    "segmentation": {"size": [200, 200], "counts": runs},
                }
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "truth.json").write_text(json.dumps(content))
    return f"coco:{folder / 'truth.json'}"


def detections(data: str, seed: int = 0) -> list[dict[str, Any]]:
    """Moved objects, some of another class, with scores that are often equal."""
    rng = np.random.default_rng(seed)
    content = json.loads(Path(data.removeprefix("coco:")).read_text())
    found = []
    for annotation in content["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = (np.array(annotation["bbox"]) + rng.normal(0, 3, 4)).clip(1).round(1)
            found.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": int(rng.choice([3, 8, 9, annotation["category_id"]])),
                    "bbox": box.tolist(),
                    "score": round(float(rng.random()), 1),
                    "segmentation": polygon(box),
                }
            )
    return found


def voc_objects(root: Path) -> dict[Any, list[VocObject]]:
    """The objects of each image."""
    data = read_voc_data(VocSpec(root, "all"), Findings("test"))
    return {
        image.id: [VocObject(t.label, t.voc_box, t.difficult) for t in image.things if t.voc_box]
        for image in data.images
    }


def voc_detections(root: Path, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    objects = voc_objects(root)
    found = []
    for name, things in objects.items():
        for thing in things:
            for _ in range(5):
                x0, y0, x1, y1 = np.array(thing.box) + rng.normal(0, 2, 4)
                found.append(
                    {
                        "image_id": name,
                        "category_id": int(rng.integers(1, 3)),
                        "bbox": [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1],
                        "score": round(float(rng.random()), 2),
                    }
                )
    return found


def as_rle(gt: COCO, entry: dict[str, Any]) -> dict[str, Any]:
    """The mask of an entry with counts as a text."""
    mask = gt.annToRLE(entry)
    return {**mask, "counts": mask["counts"].decode()}


def without_masks(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "segmentation"} for entry in entries]
