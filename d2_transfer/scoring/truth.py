"""The annotations of a data set as both backends of COCO's metric read them safely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from d2_transfer.data.coco import read_coco
from d2_transfer.data.spec import CocoSpec, VocSpec
from d2_transfer.data.voc import VocObject, load_voc_objects


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Annotations in COCO form, renumbered.

    pycocotools takes an annotation with the id 0 for "no match", and hotcoco needs ids that are
    there and differ. So annotations and images are numbered from 1 here, whatever the file has.

    Attributes:
        content: images, annotations and categories, as COCO's files have them.
        image_numbers: the id of an image in the data -> its number in ``content``.
        classes: names, in the order of the category ids.
        voc: the objects of VOC's XML files by image, for VOC's own metrics; None for COCO's files.
        voc_2007: whether VOC's metric has 11 points, as in 2007.
    """

    content: dict[str, list[dict[str, Any]]]
    image_numbers: Mapping[Any, int]
    classes: Sequence[str]
    voc: Sequence[Sequence[VocObject]] | None = None
    voc_2007: bool = field(default=True)

    @property
    def renumbered(self) -> bool:
        """Whether images have other numbers than in the data."""
        return any(image != number for image, number in self.image_numbers.items())


def load_truth(spec: CocoSpec | VocSpec, *, classes: Sequence[str] | None = None) -> Truth:
    """Reads the annotations of a data set.

    Args:
        spec: which.
        classes: names of the classes of VOC data, in order; None: those that occur, sorted.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed.
    """
    return _coco(spec) if isinstance(spec, CocoSpec) else _voc(spec, classes)


def _coco(spec: CocoSpec) -> Truth:
    content = read_coco(str(spec.json_file))
    ids = [image.get("id") for image in content["images"]]
    if len(set(ids)) < len(ids) or None in ids:
        raise ValueError(f"{spec.json_file}: an image has no id, or two have the same")
    plain = all(isinstance(i, int) and i > 0 for i in ids)
    numbers = {i: i if plain else n for n, i in enumerate(ids, start=1)}
    known = {category["id"] for category in content["categories"]}
    annotations = []
    for place, annotation in enumerate(content["annotations"]):
        if annotation.get("image_id") not in numbers or annotation.get("category_id") not in known:
            raise ValueError(
                f"{spec.json_file}: annotation {place} is of an image or a category that the file "
                "does not define"
            )
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{spec.json_file}: annotation {place} has the bbox {box}")
        annotations.append(
            {
                **annotation,
                "id": place + 1,
                "image_id": numbers[annotation["image_id"]],
                "area": annotation.get("area", box[2] * box[3]),
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
        )
    images = [{**image, "id": numbers[image["id"]]} for image in content["images"]]
    categories = sorted(content["categories"], key=lambda category: category["id"])
    return Truth(
        content={"images": images, "annotations": annotations, "categories": categories},
        image_numbers=numbers,
        classes=[category["name"] for category in categories],
    )


def _voc(spec: VocSpec, classes: Sequence[str] | None) -> Truth:
    objects = load_voc_objects(str(spec.root), spec.split)
    names = sorted({thing.name for things in objects.values() for thing in things})
    classes = names if classes is None else list(classes)
    if unknown := sorted(set(names) - set(classes)):
        raise ValueError(f"class {unknown[0]!r} is not among {', '.join(classes)}")
    annotations: list[dict[str, Any]] = []
    for number, things in enumerate(objects.values(), start=1):
        for thing in things:
            x0, y0, x1, y1 = thing.box  # VOC counts pixels from 1 and includes the last
            width, height = x1 - x0 + 1, y1 - y0 + 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(thing.name) + 1,
                    "bbox": [x0 - 1, y0 - 1, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    return Truth(
        content={
            "images": [{"id": n} for n in range(1, len(objects) + 1)],
            "annotations": annotations,
            "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
        },
        image_numbers={name: n for n, name in enumerate(objects, start=1)},
        classes=classes,
        voc=list(objects.values()),
        voc_2007="2012" not in spec.root.name,
    )


def as_arrays(results: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Columns of detections in COCO's results format: image_id, category_id, bbox and score."""
    return {
        "image_id": np.array([r["image_id"] for r in results]),
        "category_id": np.array([r["category_id"] for r in results], dtype=np.int64),
        "bbox": np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4),
        "score": np.array([r["score"] for r in results], dtype=np.float64),
    }
