"""Draws the demo's data set: unlabelled images, a class folder for k-NN, scenes in COCO's form.

    python tools/demo/dataset.py ROOT

    ROOT/stamp.json                       how much of what; written last
    ROOT/unlabelled/00000.jpg             for pretraining; one object dominates most of them
    ROOT/classes/{train,val}/<class>/     object-centred images with labels, for k-NN accuracy only
    ROOT/coco/annotations/{train,val}.json, ROOT/coco/{train,val}/train_00000.png

Every image has a generator of its own, seeded by (seed, split, index): image 7 is the same whether
ten images are made or a thousand, in whatever order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from cwrgp.cli import make_parser, run_main
from cwrgp.file_io.atomic import move_into_place
from scenes import Scene, draw_portrait, draw_scene
from shapes import CLASS_NAMES

VERSION = 1  # raise when the drawing changes: then the demo makes its data set again
STAMP = "stamp.json"
_SPLIT_CODES = {"unlabelled": 0, "classes/train": 1, "classes/val": 2, "train": 3, "val": 4}


@dataclass(frozen=True)
class DatasetSpec:
    """How much to draw, and from which seed."""

    seed: int = 0
    unlabelled: int = 3000  # images without labels
    classes_train: int = 600  # object-centred images that k-NN votes with (all classes together)
    classes_val: int = 300  # object-centred images of the probe
    train: int = 32  # labelled scenes to fine-tune on
    val: int = 100  # labelled scenes to evaluate on
    portrait_size: int = 72  # side in pixels of unlabelled and object-centred images
    scene_size: int = 128  # side in pixels of labelled scenes
    max_objects: int = 4  # a scene has 1 to this many objects
    scene_share: float = 0.1  # share of unlabelled images that are scenes with small objects


def _generator(spec: DatasetSpec, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, _SPLIT_CODES[split], index])


def unlabelled_image(spec: DatasetSpec, index: int) -> Scene:
    """Image ``index`` of the unlabelled split, with the labels that are not written."""
    rng = _generator(spec, "unlabelled", index)
    if rng.random() < spec.scene_share:
        return draw_scene(rng, spec.portrait_size, int(rng.integers(2, 4)), (0.35, 0.6))
    return draw_portrait(rng, spec.portrait_size, int(rng.integers(len(CLASS_NAMES))))


def class_image(spec: DatasetSpec, split: str, index: int) -> tuple[Scene, int]:
    """Image ``index`` of ``classes/train`` or ``classes/val`` and its class; classes take turns."""
    rng = _generator(spec, f"classes/{split}", index)
    class_index = index % len(CLASS_NAMES)
    return draw_portrait(rng, spec.portrait_size, class_index), class_index


def labelled_scene(spec: DatasetSpec, split: str, index: int) -> Scene:
    """Scene ``index`` of the labelled split ``train`` or ``val``."""
    rng = _generator(spec, split, index)
    return draw_scene(rng, spec.scene_size, int(rng.integers(1, spec.max_objects + 1)))


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO annotations of a scene, with ids from ``first_id`` on; masks as compressed RLE."""
    masks = coco_mask.encode(np.asfortranarray(scene.masks.transpose(1, 2, 0), np.uint8))
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": class_index + 1,
            "bbox": coco_mask.toBbox(rle).tolist(),
            "area": int(coco_mask.area(rle)),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "iscrowd": 0,
        }
        for number, (rle, class_index) in enumerate(
            zip(masks, scene.classes, strict=True), first_id
        )
    ]


def _write_images(root: Path, spec: DatasetSpec) -> Iterator[None]:
    """Writes everything but the stamp; yields after each image."""
    for index in range(spec.unlabelled):
        path = root / "unlabelled" / f"{index:05d}.jpg"
        _save(unlabelled_image(spec, index), path, quality=92, subsampling=0)
        yield
    for split, count in (("train", spec.classes_train), ("val", spec.classes_val)):
        for index in range(count):
            scene, class_index = class_image(spec, split, index)
            folder = root / "classes" / split / CLASS_NAMES[class_index]
            _save(scene, folder / f"{index:05d}.png", compress_level=3)
            yield
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASS_NAMES, start=1)]
    (root / "coco" / "annotations").mkdir(parents=True)
    size = {"height": spec.scene_size, "width": spec.scene_size}
    for split, count in (("train", spec.train), ("val", spec.val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            scene = labelled_scene(spec, split, index)
            name = f"{split}_{index:05d}.png"
            images.append({"id": index + 1, "file_name": name, **size})
            annotations += coco_annotations(scene, index + 1, len(annotations) + 1)
            _save(scene, root / "coco" / split / name, compress_level=3)
            yield
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "coco" / "annotations" / f"{split}.json").write_text(json.dumps(content))


def _save(scene: Scene, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(path, **options)


def write_dataset(
    root: Path, spec: DatasetSpec, progress: Callable[[int, int], None] | None = None
) -> None:
    """Writes the data set.

    Everything goes into a folder beside ``root`` that takes its name when complete, so an
    interrupted run leaves no half-made data set under that name.

    Args:
        root: the data set's folder.
        spec: what to draw.
        progress: called with (images written, images in all) after each image.

    Raises:
        ValueError: ``root`` exists and is not an empty folder.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise ValueError(f"{root} exists: delete it, or choose another folder")
    partial = root.parent / f".{root.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    total = spec.unlabelled + spec.classes_train + spec.classes_val + spec.train + spec.val
    try:
        for done, _ in enumerate(_write_images(partial, spec), start=1):
            if progress is not None:
                progress(done, total)
        (partial / STAMP).write_text(json.dumps(asdict(spec), indent=2) + "\n")
        move_into_place(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _print_progress(done: int, total: int) -> None:
    """A line at every tenth part."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"{done} of {total} images", flush=True)


def parse_args() -> argparse.Namespace:
    parser = make_parser("python tools/demo/dataset.py", "Draws the demo's data set.")
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: must not be negative")
    write_dataset(args.root, DatasetSpec(seed=args.seed), _print_progress)


if __name__ == "__main__":
    sys.exit(run_main(main, parse_args()))
