"""Entries of ``DATASETS.CUSTOM``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2_transfer.data.spec import CocoSpec, Spec, VocSpec, YoloSpec

# Keys of an entry beside NAME and FORMAT: paths, other required ones, optional ones.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "coco": (("JSON", "IMAGES"), (), ()),
    "voc": (("ROOT",), ("SPLIT",), ("YEAR", "CLASSES")),
    "yolo": (("YAML",), ("SPLIT",), ()),
}


def parse_entry(entry: Mapping[str, Any]) -> tuple[str, Spec]:
    """The name and the spec of an entry; relative paths start from the current folder.

    Args:
        entry: ``{NAME, FORMAT: coco, JSON, IMAGES}``, ``{NAME, FORMAT: voc, ROOT, SPLIT}`` with
            optionally ``YEAR`` (2007: AP at 11 points of recall, the default; 2012: area under the
            curve) and ``CLASSES``, or ``{NAME, FORMAT: yolo, YAML, SPLIT}``.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the entry is malformed.
    """
    texts = isinstance(entry, Mapping) and all(
        isinstance(entry.get(key), str) for key in ("NAME", "FORMAT")
    )
    if not texts or entry["FORMAT"] not in _KEYS:
        raise ValueError(
            f"DATASETS.CUSTOM: {entry!r} is not like"
            " {'NAME': 'x', 'FORMAT': 'coco', 'JSON': FILE, 'IMAGES': FOLDER},"
            " {'NAME': 'x', 'FORMAT': 'voc', 'ROOT': FOLDER, 'SPLIT': 'train'} or"
            " {'NAME': 'x', 'FORMAT': 'yolo', 'YAML': FILE, 'SPLIT': 'train'}"
        )
    name, form = entry["NAME"], entry["FORMAT"]
    path_keys, others, optional = _KEYS[form]
    required = {*path_keys, *others}
    given = set(entry) - {"NAME", "FORMAT"}
    if missing := sorted(required - given):
        raise ValueError(f"DATASETS.CUSTOM: {name!r} lacks {', '.join(missing)}")
    if unknown := sorted(given - required - {*optional}):
        allowed = ", ".join(sorted({*required, *optional}))
        raise ValueError(
            f"DATASETS.CUSTOM: {name!r} has unknown keys {', '.join(unknown)}; known: {allowed}"
        )
    paths = [Path(str(entry[key])).expanduser().absolute() for key in path_keys]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"DATASETS.CUSTOM: {path} of the data set {name!r} does not exist"
            )
    if form == "coco":
        return name, CocoSpec(paths[0], paths[1])
    if form == "yolo":
        return name, YoloSpec(paths[0], str(entry["SPLIT"]))
    year = entry.get("YEAR", 2007)
    if year not in (2007, 2012):
        raise ValueError(f"DATASETS.CUSTOM: {name!r}: YEAR must be 2007 or 2012")
    classes = entry.get("CLASSES")
    if classes is not None and (
        not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes)
    ):
        raise ValueError(f"DATASETS.CUSTOM: {name!r}: CLASSES {classes!r} must be a list of names")
    classes = None if classes is None else tuple(classes)
    return name, VocSpec(paths[0], str(entry["SPLIT"]), year, classes)
