"""Synthetic annotations and detections, made from a seed in a temporary folder."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

WIDTH, HEIGHT = 640, 480
ANGLES = np.arange(12) * 2 * np.pi / 12

# (x, y, width, height, class) in pixels from 0, and the score of a detection.
Boxes = np.ndarray


def draw(
    num_images: int, num_detections: int, num_classes: int, seed: int = 0
) -> list[tuple[Boxes, Boxes, np.ndarray]]:
    """Objects (n, 5), detections (m, 5) and scores (m,) of each image.

    There are 7 objects in an image on average, as in COCO. Six detections of ten are near an
    object, and three of ten of these have another class.
    """
    rng = np.random.default_rng(seed)
    images = []
    for number in range(num_images):
        objects = _boxes(rng, int(rng.poisson(7)), num_classes)
        count = num_detections // num_images + (number < num_detections % num_images)
        found = _boxes(rng, count, num_classes)
        if len(objects):
            near = rng.random(count) < 0.6
            chosen = objects[rng.integers(len(objects), size=count)]
            noise = rng.normal(0, 1, (count, 4)) * rng.uniform(0, 0.25, (count, 1))
            found[near, :4] = (chosen[:, :4] + noise * np.tile(chosen[:, 2:4], 2))[near]
            same = near & (rng.random(count) < 0.7)
            found[same, 4] = chosen[same, 4]
        low = found[:, :2].clip(0, (WIDTH - 4, HEIGHT - 4))
        size = found[:, 2:4].clip(2, (WIDTH, HEIGHT) - low)
        found = np.concatenate([low, size, found[:, 4:]], axis=1)
        images.append((objects, found, rng.random(count) ** 2))
    return images


@cache
def coco_files(num_images: int, num_detections: int) -> dict[str, Path]:
    """Files in COCO's formats: "truth", and detections as "boxes" and, with masks, as "masks"."""
    folder = _folder()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    drawn = draw(num_images, num_detections, num_classes=80)
    for number, (objects, found, scores) in enumerate(drawn, start=1):
        images.append({"id": number, "width": WIDTH, "height": HEIGHT})
        for row, polygon in zip(objects.round(2).tolist(), _polygons(objects), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(row[4]) + 1,
                    "bbox": row[:4],
                    "area": 0.75 * row[2] * row[3],
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
        masks = rle.frPyObjects(_polygons(found), HEIGHT, WIDTH) if len(found) else []
        # A model's numbers are in single precision, which have many digits as text.
        rows = found.astype(np.float32).tolist()
        for row, score, mask in zip(rows, scores.astype(np.float32).tolist(), masks, strict=True):
            entry = {"image_id": number, "category_id": int(row[4]) + 1, "bbox": row[:4]}
            mask = {"size": [HEIGHT, WIDTH], "counts": mask["counts"].decode()}
            results.append({**entry, "score": score, "segmentation": mask})
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, 81)]
    boxes = [{k: v for k, v in e.items() if k != "segmentation"} for e in results]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    contents: dict[str, Any] = {"truth": truth, "boxes": boxes, "masks": results}
    files = {name: folder / f"{name}.json" for name in contents}
    for name, content in contents.items():
        files[name].write_text(json.dumps(content))
    return files


@cache
def voc_folder(num_images: int, num_detections: int, classes: tuple[str, ...]) -> Path:
    """A data set in VOC form: split "all", a tenth of the objects difficult."""
    root = _folder()
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    drawn = draw(num_images, num_detections, len(classes))
    for number, (objects, _, _) in enumerate(drawn):
        things = "".join(
            f"<object><name>{classes[label]}</name><pose>Unspecified</pose><truncated>0"
            f"</truncated><difficult>{int(place % 10 == 9)}</difficult><bndbox><xmin>{x + 1}</xmin>"
            f"<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for place, (x, y, w, h, label) in enumerate(objects.astype(int).tolist())
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation>{size}{things}</annotation>"
        (root / "Annotations" / f"{number:06d}.xml").write_text(text)
    names = "".join(f"{number:06d}\n" for number in range(num_images))
    (root / "ImageSets" / "Main" / "all.txt").write_text(names)
    return root


def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="benchmark")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def _boxes(rng: np.random.Generator, count: int, num_classes: int) -> Boxes:
    size = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    labels = rng.integers(num_classes, size=(count, 1))
    return np.concatenate([rng.random((count, 2)) * ((WIDTH, HEIGHT) - size), size, labels], axis=1)


def _polygons(boxes: Boxes) -> list[list[float]]:
    """Twelve points on an ellipse inside each box: x, y, x, y, ..."""
    centres = boxes[:, None, :2] + boxes[:, None, 2:4] / 2
    circle = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    points = centres + circle * boxes[:, None, 2:4] / 2
    return points.round(2).reshape(len(boxes), 2 * len(ANGLES)).tolist()
