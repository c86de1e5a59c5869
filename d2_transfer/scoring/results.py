"""Detections in COCO's results format: reading, and checks that name the entry."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from d2_transfer.data.large_json import parse_json, read_unpacked
from d2_transfer.data.values import as_id
from d2_transfer.scoring.checks import check_mask, check_object, is_number
from d2_transfer.scoring.result_masks import are_plain_masks, check_runs, plain_mask
from d2_transfer.scoring.truth import Truth

logger = logging.getLogger(__name__)

_RESULT_KEYS = ("image_id", "category_id", "bbox", "score", "segmentation")

Results = str | PathLike[str] | Sequence[Mapping[str, Any]]
# Checked entries, or the ``hotcoco.COCO`` that they were read into.
Detections = Sequence[Mapping[str, Any]] | Any


def read_results(truth: Truth, results: Results, *, backend: str, masks: bool) -> Detections:
    """The detections with the image numbers of ``truth``.

    hotcoco reads a file faster than Python. Where it finds an unknown image or category it only
    warns, so then the file is read here to name the entry. Masks are always read here.

    Args:
        truth: the annotations.
        results: a file in COCO's results format, or its entries.
        backend: of COCO's metric, which reads the file.
        masks: whether each detection needs a mask.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an entry is malformed, or is of an unknown image or category.
    """
    if not isinstance(results, str | PathLike):
        return check_results(truth, list(results), "results", masks=masks)
    path = Path(results).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of results")
    if backend == "hotcoco" and truth.voc is None and not masks and not truth.renumbered:
        detections = _read_by_hotcoco(truth, path)
        if detections is not None:
            return detections
    return check_results(truth, _read(path), str(path), masks=masks)


def check_results(
    truth: Truth, entries: Sequence[Any], where: str, *, masks: bool
) -> list[dict[str, Any]]:
    """The entries with the image numbers of ``truth``.

    Args:
        truth: the annotations.
        entries: of images and categories of the data set.
        where: they come from, for the message.
        masks: whether each needs a mask.

    Raises:
        ValueError: an entry is malformed, or is of an unknown image or category.
    """
    entries = _drop_unreadable(truth, entries, where)
    keys = _RESULT_KEYS if masks else _RESULT_KEYS[:-1]
    if _are_plain(truth, entries, masks):
        if masks:
            check_runs([entry["segmentation"] for entry in entries], where)
        if set().union(*entries) - {*keys}:
            entries = [_with_keys(entry, keys) for entry in entries]
        if not truth.renumbered:
            return list(entries)
        return _drop_repeated(truth, [_renumbered(truth, entry) for entry in entries], where)
    sizes = {i["id"]: [i.get("height"), i.get("width")] for i in truth.content["images"]}
    checked = []
    for index, entry in enumerate(entries):
        at = f"{where}: entry {index}"
        if not isinstance(entry, Mapping):
            raise ValueError(f"{at} is not an object")
        box = entry.get("bbox")
        if isinstance(box, np.ndarray | tuple):
            entry = {**entry, "bbox": [float(number) for number in box]}
        entry = {**entry, **_plain_ids(truth, entry)}
        check_object(at, entry, truth.image_numbers, truth.category_numbers)
        score = entry.get("score")
        if not is_number(score.item() if isinstance(score, np.number) else score):
            raise ValueError(f"{at} has the score {score!r}, not a finite number")
        entry = {**_renumbered(truth, entry), "score": float(entry["score"])}
        if masks:
            entry["segmentation"] = plain_mask(entry.get("segmentation"))
            check_mask(at, entry["segmentation"], sizes[entry["image_id"]])
        checked.append(_with_keys(entry, keys))
    if masks:
        check_runs([entry["segmentation"] for entry in checked], where)
    return _drop_repeated(truth, checked, where)


def _with_keys(entry: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """An entry without what the metric does not use, which the backends would stumble over."""
    return {key: entry[key] for key in keys if key in entry}


def _plain_ids(truth: Truth, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of an entry as the data have them, such as 1 for "1" or 1.0, where they have them."""
    found = {}
    for key, known in (("image_id", truth.image_numbers), ("category_id", truth.category_numbers)):
        given = entry.get(key)
        value = as_id(given.item() if isinstance(given, np.number) else given)
        if value is not None and value in known:
            found[key] = value
    return found


def _renumbered(truth: Truth, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with the numbers of ``truth``."""
    image, category = entry["image_id"], entry["category_id"]
    numbers = {"image_id": truth.image_numbers[image]}
    return {**entry, **numbers, "category_id": truth.category_numbers[category]}


def _drop_unreadable(truth: Truth, entries: Sequence[Any], where: str) -> Sequence[Any]:
    """Leaves out results on images that were skipped since they cannot be read."""
    if not truth.unreadable:
        return entries
    kept = [
        entry
        for entry in entries
        if not isinstance(entry, Mapping) or as_id(entry.get("image_id")) not in truth.unreadable
    ]
    if len(kept) < len(entries):
        logger.warning(
            "%s: %d entries are on images that cannot be read, and are dropped",
            where,
            len(entries) - len(kept),
        )
    return kept


def _drop_repeated(truth: Truth, entries: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Keeps one of equal results on an image that the file lists under several ids."""
    if not truth.repeated:
        return entries
    kept, seen = [], set()
    for entry in entries:
        if entry["image_id"] in truth.repeated:
            key = json.dumps([entry.get(name) for name in _RESULT_KEYS], default=str)
            if key in seen:
                continue
            seen.add(key)
        kept.append(entry)
    if len(kept) < len(entries):
        logger.warning(
            "%s: %d entries are equal to others on an image that is listed twice, and are dropped",
            where,
            len(entries) - len(kept),
        )
    return kept


def _are_plain(truth: Truth, entries: Sequence[Any], masks: bool) -> bool:
    """Whether all entries are as they should be, all at once, which takes a fraction of the time.

    Where not, some are of other types that are accepted, or there is a fault to be named.
    """
    try:
        images = [entry["image_id"] for entry in entries]
        categories = [entry["category_id"] for entry in entries]
        boxes = [entry["bbox"] for entry in entries]
        scores = [entry["score"] for entry in entries]
        if not set(map(type, entries)) <= {dict} or not set(map(type, boxes)) <= {list}:
            return False
        if not set(map(type, chain(images, categories))) <= {int, str}:
            return False
        if not set(images) <= truth.image_numbers.keys():
            return False
        if not set(categories) <= truth.category_numbers.keys():
            return False
        if not set(map(len, boxes)) <= {4}:
            return False
        if not set(map(type, chain(scores, *boxes))) <= {int, float}:
            return False
        values = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(values).all() or not np.isfinite(scores).all():
            return False
        if (values[:, 2:] < 0).any():
            return False
        return not masks or are_plain_masks(truth, images, [e["segmentation"] for e in entries])
    except (KeyError, TypeError, OverflowError):
        return False


def _read_by_hotcoco(truth: Truth, path: Path) -> Any:
    """The detections of a file; None where hotcoco finds anything wrong with it."""
    with path.open("rb") as file:  # hotcoco also takes a whole data set
        if not file.read(64).lstrip().startswith(b"["):
            return None
    try:
        detections = truth.hotcoco.load_res(str(path))
    except (ValueError, OSError, RuntimeError, KeyError):
        return None
    number = len(detections.get_ann_ids())
    # A result without a box has no area, and one without a score is a finding of its own.
    boxes = len(detections.get_ann_ids(area_rng=[-1, math.inf]))
    codes = {finding["code"] for finding in truth.hotcoco.healthcheck(detections)["warnings"]}
    sound = not detections.load_warnings and "dt_missing_score" not in codes
    return detections if sound and 0 < number == boxes else None


def _read(path: Path) -> list[Any]:
    written = read_unpacked(path)
    try:
        content = parse_json(written)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} is not a list of results")
    return content
