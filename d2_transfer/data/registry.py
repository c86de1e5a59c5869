"""Detection data sets by name: those of ``DATASETS.CUSTOM`` are registered, all are checked first.

Detectron2's own names (``voc_2007_trainval``, ``coco_2017_train``, ...) look for their files in the
folder that the environment variable ``DETECTRON2_DATASETS`` names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from cwrgp.suggestions import suggest
from d2_transfer.data.coco import MaskError, check_coco, coco_classes, forget_annotations
from d2_transfer.data.spec import (
    VOC_CLASSES,
    CocoSpec,
    VocSpec,
    remember,
    where_builtin,
)
from d2_transfer.data.voc import check_voc_for_evaluation, load_voc, voc_folders

# Keys of an entry of DATASETS.CUSTOM beside NAME and FORMAT: the required ones, the optional ones.
_KEYS = {"coco": ({"JSON", "IMAGES"}, set()), "voc": ({"ROOT", "SPLIT"}, {"YEAR", "CLASSES"})}

_registered: dict[str, dict[str, Any]] = {}


def register_custom(entries: Sequence[Mapping[str, Any]]) -> None:
    """Registers data sets in Detectron2's catalog.

    Args:
        entries: each ``{NAME, FORMAT: coco, JSON, IMAGES}`` or ``{NAME, FORMAT: voc, ROOT, SPLIT}``
            with, for voc, optionally ``YEAR`` (2007: AP at 11 points of recall, the default; 2012:
            area under the curve) and ``CLASSES`` (default: PASCAL VOC's twenty). Relative paths
            start from the current folder. Registering the same entry again changes nothing.

    Raises:
        FileNotFoundError: a file or folder of an entry does not exist.
        ValueError: an entry is malformed, or its name is already in use.
    """
    for entry in entries:
        normal = _normal_entry(entry)
        name = normal["NAME"]
        if _registered.get(name) == normal:
            continue
        if name in DatasetCatalog:
            known = _registered.get(name, "one of Detectron2's own")
            raise ValueError(f"DATASETS.CUSTOM: the name {name!r} is already in use, by {known}")
        if normal["FORMAT"] == "coco":
            _register_coco(**normal)
        else:
            _register_voc(**normal)
        _registered[name] = normal


def check_datasets(
    key: str, names: Sequence[str], *, num_classes: int, mask_format: str | None, evaluate: bool
) -> None:
    """Checks data sets before training, so that no fault appears later.

    Args:
        key: the key of the config that ``names`` comes from, for the messages.
        names: names of data sets.
        num_classes: of the model.
        mask_format: ``INPUT.MASK_FORMAT``, or None for a model without masks.
        evaluate: whether AP will be computed on them.

    Raises:
        FileNotFoundError: files of a data set are missing.
        ValueError: an unknown name, other classes than the model's, or invalid annotations.
    """
    for name in names:
        if name not in DatasetCatalog:
            hint = suggest(name, DatasetCatalog.keys(), "see DATASETS.CUSTOM")
            raise ValueError(f"{key}: unknown data set {name!r}; {hint}")
        metadata = MetadataCatalog.get(name)
        kind = metadata.get("evaluator_type")
        if mask_format and kind == "pascal_voc":
            raise ValueError(f"{key}: {name!r} has boxes only, but MODEL.MASK_ON is True")
        classes = metadata.get("thing_classes")
        if classes is not None and len(classes) != num_classes:
            raise ValueError(
                f"{key}: {name!r} has {len(classes)} classes, but the model has {num_classes}:"
                f" set MODEL.ROI_HEADS.NUM_CLASSES {len(classes)}"
            )
        if kind == "coco":
            _check_exist(key, name, metadata.json_file, metadata.image_root)
        elif kind == "pascal_voc":
            split = Path(metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt")
            _check_exist(key, name, str(split), *voc_folders(metadata.dirname))
        if name in _registered:
            _check_custom(_registered[name], mask_format, evaluate)


def check_same_classes(names: Sequence[str]) -> None:
    """Checks that the data sets of one run number their classes alike.

    Raises:
        ValueError: naming two of them and the first class that differs.
    """
    known = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    named = [(name, list(classes)) for name, classes in known.items() if classes is not None]
    for name, classes in named[1:]:
        first, expected = named[0]
        if classes != expected:  # as many as the model has: check_datasets
            pairs = enumerate(zip(expected, classes, strict=True))
            place = next(i for i, (a, b) in pairs if a != b)
            raise ValueError(
                f"class {place} is {expected[place]!r} in {first!r} and {classes[place]!r} in "
                f"{name!r}: the data sets of one run need the same classes in the same order"
            )


def _check_custom(entry: dict[str, Any], mask_format: str | None, evaluate: bool) -> None:
    """Reads all annotations. Detectron2's own data sets are large, and it checks them itself."""
    if entry["FORMAT"] == "coco":
        try:
            check_coco(entry["JSON"], entry["IMAGES"], mask_format, evaluate)
        except MaskError as error:
            raise ValueError(
                f"{error} (INPUT.MASK_FORMAT bitmask accepts polygons and RLE, MODEL.MASK_ON False"
                " needs no masks)"
            ) from error
    else:
        load_voc(entry["ROOT"], entry["SPLIT"], entry["CLASSES"])
        if evaluate:
            check_voc_for_evaluation(entry["ROOT"], entry["SPLIT"])


def _normal_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with absolute paths and defaults filled in."""
    texts = isinstance(entry, Mapping) and all(
        isinstance(entry.get(key), str) for key in ("NAME", "FORMAT")
    )
    if not texts or entry["FORMAT"] not in _KEYS:
        raise ValueError(
            f"DATASETS.CUSTOM: {entry!r} is not like"
            " {'NAME': 'x', 'FORMAT': 'coco', 'JSON': FILE, 'IMAGES': FOLDER} or"
            " {'NAME': 'x', 'FORMAT': 'voc', 'ROOT': FOLDER, 'SPLIT': 'train'}"
        )
    required, optional = _KEYS[entry["FORMAT"]]
    given = set(entry) - {"NAME", "FORMAT"}
    if missing := sorted(required - given):
        raise ValueError(f"DATASETS.CUSTOM: {entry['NAME']!r} lacks {', '.join(missing)}")
    if unknown := sorted(given - required - optional):
        allowed = ", ".join(sorted(required | optional))
        raise ValueError(
            f"DATASETS.CUSTOM: {entry['NAME']!r} has unknown keys {', '.join(unknown)}; known:"
            f" {allowed}"
        )
    normal = dict(entry)
    for path in required - {"SPLIT"}:
        normal[path] = os.path.abspath(os.path.expanduser(str(entry[path])))
    if entry["FORMAT"] == "voc":
        normal["YEAR"] = entry.get("YEAR", 2007)
        if normal["YEAR"] not in (2007, 2012):
            raise ValueError(f"DATASETS.CUSTOM: {entry['NAME']!r}: YEAR must be 2007 or 2012")
        normal["CLASSES"] = tuple(entry.get("CLASSES", VOC_CLASSES))
    return normal


def _register_coco(NAME: str, FORMAT: str, JSON: str, IMAGES: str) -> None:
    _check_exist("DATASETS.CUSTOM", NAME, JSON, IMAGES)
    remember(NAME, CocoSpec(Path(JSON), Path(IMAGES)))
    classes = coco_classes(JSON)

    def load() -> list[dict[str, Any]]:
        forget_annotations()  # the checks are over; Detectron2 reads the file itself
        return load_coco_json(JSON, IMAGES, NAME)

    DatasetCatalog.register(NAME, load)
    MetadataCatalog.get(NAME).set(
        thing_classes=classes,
        json_file=JSON,
        image_root=IMAGES,
        evaluator_type="coco",
    )


def _register_voc(
    NAME: str, FORMAT: str, ROOT: str, SPLIT: str, YEAR: int, CLASSES: tuple[str, ...]
) -> None:
    _check_exist("DATASETS.CUSTOM", NAME, *voc_folders(ROOT))
    remember(NAME, VocSpec(Path(ROOT), SPLIT, YEAR, CLASSES))
    DatasetCatalog.register(NAME, lambda: load_voc(ROOT, SPLIT, CLASSES))
    MetadataCatalog.get(NAME).set(
        thing_classes=list(CLASSES),
        dirname=ROOT,
        split=SPLIT,
        year=YEAR,
        evaluator_type="pascal_voc",
    )


def _check_exist(key: str, name: str, *paths: str) -> None:
    for path in paths:
        if not os.path.exists(path):
            where = "" if name in _registered or key == "DATASETS.CUSTOM" else where_builtin()
            raise FileNotFoundError(f"{key}: {path} of the data set {name!r} does not exist{where}")
