"""Mended annotations as a COCO file that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cwrgp.file_io.atomic import write_text
from cwrgp.image_files import common_folder, name_below
from d2_transfer.data.annotated import AnnotatedImage, Thing
from d2_transfer.data.load import LoadedData
from d2_transfer.data.masks import mask_area


def ignored_orientations(loaded: LoadedData) -> list[Path]:
    """The images whose EXIF orientation the boxes ignore, and other tools may apply."""
    files = [image.file for image in loaded.data.images if image.file and not image.turned]
    return [file for file in files if loaded.files[file].orientation != 1]


def write_coco(loaded: LoadedData, path: Path) -> Path:
    """Writes a data set as it is used.

    File names are those on disk, relative to a folder that is returned. Sizes are those that the
    boxes are in. Ids that are whole numbers above 0 stay, others are numbered from 1. Masks are
    written if the data were loaded with them. ``info`` lists the images whose EXIF orientation must
    not be applied.

    Args:
        loaded: with images.
        path: of the JSON file.

    Returns:
        The folder of the images.
    """
    data = loaded.data
    root = common_folder(image.file for image in data.images if image.file)
    image_ids = _numbers([image.id for image in data.images])
    category_ids = _numbers(list(data.category_ids))
    categories = dict(zip(data.classes, category_ids, strict=True))
    annotations: list[dict[str, Any]] = []
    for image, number in zip(data.images, image_ids, strict=True):
        for thing in image.things:
            entry = {"id": len(annotations) + 1, "image_id": number}
            entry["category_id"] = categories[thing.label]
            annotations.append({**entry, **_entry(thing, image, masks=bool(loaded.mask_format))})
    ignored = [name_below(file, root) for file in ignored_orientations(loaded)]
    content = {
        "info": {"description": data.source, "exif_orientation_must_be_ignored": ignored},
        "images": [
            {
                "id": number,
                "file_name": _name(image, root),
                "width": image.width,
                "height": image.height,
            }
            for image, number in zip(data.images, image_ids, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, ensure_ascii=False))
    return root


def _name(image: AnnotatedImage, root: Path) -> str:
    assert image.file is not None
    return name_below(image.file, root)


def _numbers(ids: list[int | str]) -> list[int]:
    if all(isinstance(number, int) and number > 0 for number in ids):
        return [int(number) for number in ids]
    return list(range(1, len(ids) + 1))


def _entry(thing: Thing, image: AnnotatedImage, *, masks: bool) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    mask, area = thing.mask if masks else None, thing.area
    if area is None and mask is not None:
        area = mask_area(mask, round(image.height or 0), round(image.width or 0))
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0) if area is None else area,
        "iscrowd": int(thing.crowd),
        **({"segmentation": mask} if mask is not None else {}),
        **({"difficult": 1} if thing.difficult else {}),
    }
