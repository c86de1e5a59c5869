"""Small annotated data sets in COCO, VOC and YOLO form, as annotation tools write them.

Four images of 80 x 60 pixels with one object each, of the classes cat and dog in turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2_transfer.data.load import LoadedData
from d2_transfer.data.spec import CocoSpec, VocSpec, YoloSpec

WIDTH, HEIGHT = 80, 60
CLASSES = ("cat", "dog")
BOXES = [(10, 8, 40, 38), (30, 20, 62, 44), (5, 30, 25, 55), (44, 4, 76, 52)]  # corners
LABELS = [CLASSES[number % 2] for number in range(4)]
Truth = dict[str, list[tuple[str, tuple[float, ...]]]]
Save = Callable[[Image.Image, Path, int], None]


def truth(suffix: str = ".png") -> Truth:
    """File name -> class and corners of its objects."""
    return {f"p{n}{suffix}": [(LABELS[n], BOXES[n])] for n in range(4)}


def boxes_of(loaded: LoadedData, digits: int = 3) -> Truth:
    """What was loaded, in the form of `truth`."""
    return {
        Path(image.file or image.name).name: [
            (thing.label, tuple(round(v, digits) for v in thing.box)) for thing in image.things
        ]
        for image in loaded.data.images
    }


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """An image of noise with a rectangle for its object."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
    x0, y0, x1, y1 = BOXES[number]
    pixels[y0:y1, x0:x1] = (220, 40, 40) if number % 2 else (30, 60, 220)
    return Image.fromarray(pixels)


def save_plainly(image: Image.Image, path: Path, number: int) -> None:
    """Writes an image as its suffix says."""
    image.save(path)


def save_turned(orientation: int) -> Save:
    """Writes images with an EXIF orientation."""

    def save(image: Image.Image, path: Path, number: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)

    return save


def write_pictures(folder: Path, suffix: str = ".png", save: Save = save_plainly) -> list[str]:
    """Writes the four images and returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{number}{suffix}" for number in range(4)]
    for number, name in enumerate(names):
        save(picture(number), folder / name, number)
    return names


def coco_content(names: Sequence[str]) -> dict[str, Any]:
    """A COCO file of the four images, with a polygon for each object."""
    images, annotations = [], []
    for number, name in enumerate(names):
        x0, y0, x1, y1 = BOXES[number]
        images.append({"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations.append(
            {
                "id": number + 1,
                "image_id": number + 1,
                "category_id": number % 2 + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
        )
    categories = [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_set(
    folder: Path,
    change: Callable[[dict[str, Any]], object] | None = None,
    *,
    suffix: str = ".png",
    save: Save = save_plainly,
    encode: Callable[[str], bytes] = str.encode,
) -> CocoSpec:
    """Data in COCO form.

    Args:
        folder: gets ``ann.json`` and ``images``.
        change: edits the content of the file in place.
        suffix: of the images.
        save: writes an image.
        encode: gives the bytes of the file.
    """
    content = coco_content(write_pictures(folder / "images", suffix, save))
    if change is not None:
        change(content)
    (folder / "ann.json").write_bytes(encode(json.dumps(content, ensure_ascii=False)))
    return CocoSpec(folder / "ann.json", folder / "images")


def voc_xml(
    number: int,
    *,
    filename: str | None = None,
    label: str | None = None,
    corners: Sequence[object] | None = None,
    fields: str = "",
    size: tuple[object, object] | None = (WIDTH, HEIGHT),
) -> str:
    """The annotation of an image in VOC form."""
    x0, y0, x1, y1 = BOXES[number]
    values = corners or (x0 + 1, y0 + 1, x1, y1)
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, values, strict=True))
    sides = "" if size is None else f"<width>{size[0]}</width><height>{size[1]}</height>"
    return (
        f"<annotation><filename>{filename or f'p{number}.png'}</filename><size>{sides}</size>"
        f"<object><name>{label or LABELS[number]}</name>{fields}<bndbox>{box}</bndbox></object>"
        "</annotation>"
    )


def voc_set(
    folder: Path,
    *,
    suffix: str = ".png",
    lines: bytes | None = b"p0\np1\np2\np3\n",
    save: Save = save_plainly,
    encode: Callable[[str], bytes] = str.encode,
    classes: tuple[str, ...] | None = None,
    **xml: Any,
) -> VocSpec:
    """Data in VOC form.

    Args:
        folder: gets ``Annotations``, ``JPEGImages`` and ``ImageSets``.
        suffix: of the images.
        lines: of the list; None: there is none, and the images are beside the annotations.
        save: writes an image.
        encode: gives the bytes of an annotation.
        classes: of the spec.
        xml: arguments of `voc_xml`.
    """
    flat = lines is None
    annotations = folder if flat else folder / "Annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    write_pictures(folder if flat else folder / "JPEGImages", suffix, save)
    for number in range(4):
        text = voc_xml(number, **{"filename": f"p{number}{suffix}", **xml})
        (annotations / f"p{number}.xml").write_bytes(encode(text))
    if lines is not None:
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / "train.txt").write_bytes(lines)
    return VocSpec(folder, "all" if flat else "train", classes=classes)


def yolo_row(number: int) -> str:
    """The label of an image in YOLO form."""
    x0, y0, x1, y1 = BOXES[number]
    center = f"{(x0 + x1) / 2 / WIDTH:.6f} {(y0 + y1) / 2 / HEIGHT:.6f}"
    return f"{number % 2} {center} {(x1 - x0) / WIDTH:.6f} {(y1 - y0) / HEIGHT:.6f}"


def yolo_polygon(number: int) -> str:
    """The label of an image as a polygon of four points."""
    x0, y0, x1, y1 = BOXES[number]
    points = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return f"{number % 2} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in points)


def yolo_set(
    folder: Path,
    *,
    yaml: str = "train: images/train\nval: images/train\nnames: [cat, dog]\n",
    images: str = "images/train",
    labels: str = "labels/train",
    row: Callable[[int], str | None] = yolo_row,
    save: Save = save_plainly,
) -> YoloSpec:
    """Data in YOLO form.

    Args:
        folder: gets ``data.yaml``, and the two folders.
        yaml: the text of ``data.yaml``.
        images: folder of the images.
        labels: folder of the label files.
        row: gives the text of a label file; None: no file.
        save: writes an image.
    """
    write_pictures(folder / images, save=save)
    (folder / labels).mkdir(parents=True, exist_ok=True)
    for number in range(4):
        if (text := row(number)) is not None:
            (folder / labels / f"p{number}.txt").write_text(text, newline="")
    (folder / "data.yaml").write_text(yaml)
    return YoloSpec(folder / "data.yaml", "train")
