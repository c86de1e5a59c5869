"""The annotations of a data set as both backends of COCO's metric read them safely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Thing
from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex
from d2_transfer.data.load import LoadedData, load_annotated
from d2_transfer.data.masks import box_as_mask, mask_area
from d2_transfer.data.readers.voc_files import voc_image_folder
from d2_transfer.data.spec import CocoSpec, Spec, VocSpec
from d2_transfer.scoring.voc import VocObject

_MOST = 2**63  # ids are 64-bit integers in both backends


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Annotations in COCO form, renumbered.

    pycocotools takes an annotation with the id 0 for "no match", and hotcoco needs ids that are
    whole numbers, not negative, and differ. So annotations are numbered from 1 here, and images
    and categories wherever the file has other ids.

    Attributes:
        content: images, annotations and categories, as COCO's files have them.
        image_numbers: the id of an image in the data -> its number in ``content``. An image that
            is listed twice has both ids.
        classes: names, in the order of the category ids.
        findings: what was mended and skipped.
        category_numbers: the id of a category in the data -> its id in ``content``; ids of merged
            categories have that of the other.
        unreadable: ids of images that were skipped -> why. Results on them do not count.
        repeated: numbers of images that the file lists under several ids.
        voc: the objects of VOC's XML files by image, for VOC's own metrics; None for COCO's files.
        protocol: the data set's own metric: "coco", "voc07" (11 points of recall) or "voc10" (all
            points).
    """

    content: dict[str, list[dict[str, Any]]]
    image_numbers: Mapping[Any, int]
    category_numbers: Mapping[Any, int]
    classes: Sequence[str]
    findings: Findings
    unreadable: Mapping[Any, str] = field(default_factory=dict)
    repeated: frozenset[int] = frozenset()
    voc: Sequence[Sequence[VocObject]] | None = None
    protocol: str = "coco"

    def content_for(self, iou_type: str) -> dict[str, list[dict[str, Any]]]:
        """The annotations for the AP of boxes ("bbox") or masks ("segm").

        Objects without a mask are ignored regions for masks: neither found nor missed.
        """
        return self._segm_content if iou_type == "segm" else self.content

    def hotcoco_for(self, iou_type: str) -> Any:
        """`content_for` as hotcoco holds it."""
        return self._hotcoco_segm if iou_type == "segm" else self.hotcoco

    @cached_property
    def hotcoco(self) -> Any:
        """The annotations as hotcoco holds them."""
        import hotcoco

        return hotcoco.COCO(self.content)

    @cached_property
    def _hotcoco_segm(self) -> Any:
        import hotcoco

        return hotcoco.COCO(self._segm_content)

    @cached_property
    def _segm_content(self) -> dict[str, list[dict[str, Any]]]:
        sizes = {image["id"]: (image["height"], image["width"]) for image in self.content["images"]}
        annotations = []
        for annotation in self.content["annotations"]:
            if annotation.get("segmentation") is None:
                x, y, w, h = annotation["bbox"]
                mask = box_as_mask((x, y, x + w, y + h), *sizes[annotation["image_id"]])
                annotation = {**annotation, "segmentation": mask, "iscrowd": 1}
            annotations.append(annotation)
        return {**self.content, "annotations": annotations}

    @cached_property
    def renumbered(self) -> bool:
        """Whether images or categories have other numbers than in the data."""
        ids = chain(self.image_numbers.items(), self.category_numbers.items())
        return any(given != number for given, number in ids)


def load_truth(spec: Spec, *, masks: bool = False, classes: Sequence[str] | None = None) -> Truth:
    """Reads the annotations of a data set.

    Images are looked at where they are at hand: sizes and orientations are theirs then.

    Args:
        spec: which.
        masks: whether masks are scored.
        classes: names of the classes of VOC data, in order; None: the spec's, or those that occur,
            sorted.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed.
    """
    if classes is not None and not isinstance(spec, VocSpec):
        raise ValueError("classes are for VOC data; COCO's files name their own")
    loaded = load_annotated(spec, masks=masks, need_images=_has_images(spec), classes=classes)
    return make_truth(loaded)


def _has_images(spec: Spec) -> bool:
    """Whether the images of a data set are at hand."""
    if isinstance(spec, CocoSpec):
        return spec.images is not None and spec.images.is_dir()
    if not isinstance(spec, VocSpec):
        return True  # the boxes are relative to the images' sides
    return bool(FileIndex(voc_image_folder(spec.root)).files)


def make_truth(loaded: LoadedData) -> Truth:
    """The annotations that a data set is scored by.

    Args:
        loaded: what `load_annotated` gives, with masks if these are to be scored.
    """
    data = loaded.data
    numbers = _numbers([image.id for image in data.images], least=1)
    category_numbers = _numbers(data.category_ids, least=0)
    categories = {
        name: category_numbers[category]
        for name, category in zip(data.classes, data.category_ids, strict=True)
    }
    aliases = {
        alias: category_numbers[category]
        for alias, category in data.category_aliases.items()
        if category in category_numbers
    }
    annotations: list[dict[str, Any]] = []
    for image in data.images:
        for thing in image.things:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[image.id],
                    "category_id": categories[thing.label],
                    **_as_coco(thing, image, masks=loaded.mask_format is not None),
                }
            )
    also = {other: numbers[image.id] for image in data.images for other in image.other_ids}
    return Truth(
        content={
            "images": [_image(image, numbers[image.id]) for image in data.images],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for name, i in categories.items()],
        },
        image_numbers={**numbers, **also},
        category_numbers={**category_numbers, **aliases},
        classes=list(data.classes),
        findings=loaded.findings,
        unreadable=loaded.unreadable,
        repeated=frozenset(also.values()),
        voc=None if data.protocol == "coco" else _voc_objects(data),
        protocol=data.protocol,
    )


def _numbers(ids: Sequence[int | str], *, least: int) -> dict[int | str, int]:
    """The ids themselves, if all are whole numbers that both backends take; else 1, 2, ..."""
    plain = all(isinstance(given, int) and least <= given < _MOST for given in ids)
    return {given: int(given) if plain else n for n, given in enumerate(ids, start=1)}


def _image(image: AnnotatedImage, number: Any) -> dict[str, Any]:
    if image.width is None or image.height is None:
        return {"id": number}
    return {"id": number, "height": round(image.height), "width": round(image.width)}


def _as_coco(thing: Thing, image: AnnotatedImage, *, masks: bool) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    area = thing.area
    if area is None and masks and thing.mask is not None:
        assert image.height is not None and image.width is not None
        area = mask_area(thing.mask, round(image.height), round(image.width))
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0) if area is None else area,
        "iscrowd": int(thing.crowd),
        **({"segmentation": thing.mask} if masks and thing.mask is not None else {}),
    }


def _voc_objects(data: AnnotatedData) -> list[list[VocObject]]:
    found = []
    for image in data.images:
        objects = []
        for thing in image.things:
            assert thing.voc_box is not None
            objects.append(VocObject(thing.label, thing.voc_box, thing.difficult))
        found.append(objects)
    return found
