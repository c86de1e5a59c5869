"""The annotations of a data set as both backends of COCO's metric read them safely."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from d2_transfer.data.coco import check_mask, is_numbers, read_coco
from d2_transfer.data.spec import CocoSpec, Spec, VocSpec
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
        protocol: the data set's own metric: "coco", "voc07" (11 points of recall) or "voc10" (all
            points).
    """

    content: dict[str, list[dict[str, Any]]]
    image_numbers: Mapping[Any, int]
    classes: Sequence[str]
    voc: Sequence[Sequence[VocObject]] | None = None
    protocol: str = "coco"

    @cached_property
    def hotcoco(self) -> Any:
        """The annotations as hotcoco holds them."""
        import hotcoco

        return hotcoco.COCO(self.content)

    @cached_property
    def renumbered(self) -> bool:
        """Whether images have other numbers than in the data."""
        return any(image != number for image, number in self.image_numbers.items())


def load_truth(spec: Spec, *, masks: bool = False, classes: Sequence[str] | None = None) -> Truth:
    """Reads the annotations of a data set.

    Args:
        spec: which.
        masks: whether every object needs a mask.
        classes: names of the classes of VOC data, in order; None: the spec's, or those that occur,
            sorted.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed.
    """
    if isinstance(spec, VocSpec):
        return _voc(spec, spec.classes if classes is None else classes)
    if classes is not None:
        raise ValueError("classes are for VOC data; COCO's files name their own")
    return _coco(spec, masks)


def _coco(spec: CocoSpec, masks: bool) -> Truth:
    file = str(spec.json_file)
    content = read_coco(file)
    ids = [image.get("id") for image in content["images"]]
    if not all(isinstance(i, int | str) for i in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"{file}: an image has no id, or two have the same")
    plain = all(isinstance(i, int) and i > 0 for i in ids)
    numbers = {i: i if plain else n for n, i in enumerate(ids, start=1)}
    sizes = {i["id"]: [i.get("height"), i.get("width")] for i in content["images"]}
    if masks and not all(is_numbers(size) for size in sizes.values()):
        raise ValueError(f"{file}: masks need the height and width of every image")
    known = {category["id"] for category in content["categories"]}
    annotations = []
    for place, annotation in enumerate(content["annotations"]):
        where = f"{file}: annotation {place}"
        check_object(where, annotation, numbers, known)
        if masks:
            if "segmentation" not in annotation:
                raise ValueError(f"{where} has no mask")
            size = sizes[annotation["image_id"]]
            check_mask(where, annotation["segmentation"], "bitmask", size)
        area = annotation.get("area")
        annotations.append(
            {
                **annotation,
                "id": place + 1,
                "image_id": numbers[annotation["image_id"]],
                "area": annotation["bbox"][2] * annotation["bbox"][3] if area is None else area,
                "iscrowd": int(annotation.get("iscrowd") or 0),
            }
        )
    images = [{**image, "id": numbers[image["id"]]} for image in content["images"]]
    categories = sorted(content["categories"], key=lambda category: category["id"])
    return Truth(
        content={"images": images, "annotations": annotations, "categories": categories},
        image_numbers=numbers,
        classes=[category["name"] for category in categories],
    )


def check_object(
    where: str, entry: Mapping[str, Any], images: Container[Any], categories: Container[Any]
) -> None:
    """Checks what an annotation and a result have in common.

    Args:
        where: what it is, for the message.
        entry: with image_id, category_id and bbox.
        images: the ids that exist.
        categories: likewise.

    Raises:
        ValueError: something is missing, unknown or no box.
    """
    if missing := [key for key in ("image_id", "category_id", "bbox") if key not in entry]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(entry[key], int | str) or entry[key] not in known:
            raise ValueError(f"{where} has the unknown {key} {entry[key]!r}")
    box = entry["bbox"]
    if not is_numbers(box) or len(box) != 4 or min(box[2:]) < 0:
        raise ValueError(
            f"{where} has the bbox {box}; it must be x, y, width, height, finite, and not below 0"
        )


def _voc(spec: VocSpec, classes: Sequence[str] | None) -> Truth:
    objects = load_voc_objects(str(spec.root), spec.split)
    names = sorted({thing.name for things in objects.values() for thing in things})
    classes = names if classes is None else list(classes)
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes {', '.join(classes)}: one is named twice")
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
        protocol="voc07" if spec.is_2007 else "voc10",
    )
