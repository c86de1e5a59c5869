"""Reads the data sets of a run before it starts, and sets what follows from them in its config."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cwrgp.suggestions import suggest
from d2_transfer.data.classes import use_classes
from d2_transfer.data.load import LoadedData
from d2_transfer.data.registry import (
    Reading,
    find_spec,
    forget_data,
    keep_data,
    load_data,
    use_reading,
)
from d2_transfer.data.spec import where_builtin
from d2_transfer.data.values import folded

logger = logging.getLogger(__name__)


def run_datasets(cfg: CfgNode, *, eval_only: bool) -> list[str]:
    """The names of the data sets that a run uses, each once."""
    train = () if eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL)
    return list(dict.fromkeys((*train, *cfg.DATASETS.TEST)))


def check_names(key: str, names: Iterable[str], *, masks: bool) -> None:
    """Checks that data sets are known and, where Detectron2 reads them, that they are there.

    Args:
        key: of the config, for messages.
        names: of registered data sets.
        masks: whether the model has masks.

    Raises:
        FileNotFoundError: files of a data set are missing.
        ValueError: an unknown name, or a data set without masks.
    """
    for name in names:
        if name not in DatasetCatalog:
            hint = suggest(name, DatasetCatalog.keys(), "see DATASETS.CUSTOM")
            raise ValueError(f"{key}: unknown data set {name!r}; {hint}")
        metadata = MetadataCatalog.get(name)
        kind = metadata.get("evaluator_type")
        if masks and kind == "pascal_voc":
            raise ValueError(f"{key}: {name!r} has boxes only, but MODEL.MASK_ON is True")
        if find_spec(name) is not None:
            continue
        paths: list[Any] = []
        if kind == "coco":
            paths = [metadata.json_file, metadata.image_root]
        elif kind == "pascal_voc":
            paths = [os.path.join(metadata.dirname, "ImageSets", "Main", f"{metadata.split}.txt")]
        for path in paths:
            if not os.path.exists(path):
                raise FileNotFoundError(
                    f"{key}: {path} of the data set {name!r} does not exist{where_builtin()}"
                )


def settle_datasets(cfg: CfgNode, *, eval_only: bool = False, weights: str | None = None) -> None:
    """Reads the data sets of a run, and sets ``DATASETS.CLASSES``, NUM_CLASSES and MASK_FORMAT.

    The classes are those of ``DATASETS.CLASSES``, or of the training data. In an evaluation they
    are those that the run of the weights has stored, or of the test data. Test data are mapped to
    them by name.

    Args:
        cfg: changed in place; its data sets are registered and checked by `check_names`.
        eval_only: whether only the test sets are used.
        weights: the checkpoint of an evaluation, beside which the config of its run may be.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the data cannot be used, or contradict each other or NUM_CLASSES.
    """
    names = run_datasets(cfg, eval_only=eval_only)
    own = [name for name in names if find_spec(name) is not None]
    forget_data(own)
    if eval_only and not cfg.DATASETS.CLASSES:
        cfg.DATASETS.CLASSES = stored_classes(weights)
    key = "TEST" if eval_only else "TRAIN"
    fixed = _fixed_classes(names)
    reading = Reading.of(cfg)
    source = f"DATASETS.{key}"
    if fixed is not None:
        name, classes = fixed
        if reading.classes not in (None, tuple(classes)):
            raise ValueError(
                f"DATASETS.CLASSES {_some(cfg.DATASETS.CLASSES)} are not the classes of {name!r},"
                f" {_some(classes)}: omit it"
            )
        source = repr(name)
        reading = replace(reading, classes=tuple(classes))
    elif reading.classes is not None:
        source = "DATASETS.CLASSES"
    first: dict[str, LoadedData] = {}
    if reading.classes is None:
        first = {n: load_data(n, reading) for n in cfg.DATASETS[key] if n in own}
        reading = replace(reading, classes=tuple(_union(first.values())))
    assert reading.classes is not None
    set_num_classes(cfg, reading.classes, source)
    cfg.DATASETS.CLASSES = list(reading.classes)
    use_reading(own, reading)
    for name, loaded in first.items():
        use_classes(loaded.data, reading.classes, loaded.findings)
        if reading.strict:
            loaded.findings.check_strict()
        keep_data(name, reading, loaded)
    formats = {load_data(name, reading).mask_format for name in own}
    if "bitmask" in formats:
        cfg.INPUT.MASK_FORMAT = "bitmask"  # which also takes polygons
    if not eval_only:
        _check_apart(cfg, reading)


def _check_apart(cfg: CfgNode, reading: Reading) -> None:
    """Checks that no validation image is trained on or tested with.

    Raises:
        ValueError: there is one.
    """

    def files(split: str) -> set[Path]:
        found: set[Path] = set()
        for name in cfg.DATASETS[split]:
            if find_spec(name) is None:  # Detectron2 reads it
                found |= {Path(record["file_name"]) for record in DatasetCatalog.get(name)}
            else:
                images = load_data(name, reading).data.images
                found |= {image.file for image in images if image.file is not None}
        return {file.resolve() for file in found}

    val = files("VAL")
    for split in ("TRAIN", "TEST") if val else ():
        shared = sorted(val & files(split))
        if shared:
            raise ValueError(
                f"DATASETS.VAL {cfg.DATASETS.VAL[0]!r}: {len(shared)} of its {len(val)} images are"
                f" in DATASETS.{split} too, the first {shared[0]}: take others, such as the ranges"
                " NAME_0to90percent and NAME_90to100percent of one data set"
            )


def stored_classes(weights: str | None) -> list[str]:
    """The class names in the config of the run that wrote a checkpoint; [] if there are none."""
    config = Path(weights).with_name("config.yaml") if weights else None
    if config is None or not config.is_file():
        return []
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is not valid YAML: {error}".replace("\n", " ")) from error
    datasets = content.get("DATASETS") if isinstance(content, dict) else None
    return list(datasets.get("CLASSES") or []) if isinstance(datasets, dict) else []


def _fixed_classes(names: Sequence[str]) -> tuple[str, list[str]] | None:
    """A data set that Detectron2 reads, which fixes the order of the classes, and these.

    Raises:
        ValueError: two of them have different classes.
    """
    fixed: tuple[str, list[str]] | None = None
    for name in names:
        known = MetadataCatalog.get(name).get("thing_classes")
        if find_spec(name) is not None or known is None:
            continue
        if fixed is not None and list(known) != fixed[1]:
            raise ValueError(
                f"{fixed[0]!r} and {name!r} have different classes, or in another order: the data"
                " sets of Detectron2's own names in one run need the same"
            )
        fixed = fixed or (name, list(known))
    return fixed


def _union(data: Iterable[LoadedData]) -> list[str]:
    """The classes of several data sets; names that differ in case only are one."""
    found: dict[str, str] = {}
    for loaded in data:
        for name in loaded.data.classes:
            found.setdefault(folded(name), name)
    return list(found.values())


def set_num_classes(cfg: CfgNode, classes: Sequence[str], source: str) -> None:
    """Sets the number of classes where it is 0, in place.

    Raises:
        ValueError: another number is given.
    """
    heads = {"ROI_HEADS": cfg.MODEL.ROI_HEADS, "RETINANET": cfg.MODEL.RETINANET}
    used = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    given = heads[used].NUM_CLASSES
    if not classes:
        if not given:
            raise ValueError(f"{source} does not name its classes: set MODEL.{used}.NUM_CLASSES")
        return
    if given not in (0, len(classes)):
        advice = "omit it, since the classes are counted"
        if source == "DATASETS.TEST":  # which may lack classes of the model that is evaluated
            advice = f"set DATASETS.CLASSES to the names of the model's {given} classes"
        raise ValueError(
            f"MODEL.{used}.NUM_CLASSES {given} contradicts {source}, which has {len(classes)}"
            f" classes ({_some(classes)}): {advice}"
        )
    for head in heads.values():
        head.NUM_CLASSES = head.NUM_CLASSES or len(classes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def log_datasets(cfg: CfgNode, *, eval_only: bool) -> None:
    """Logs the classes, and what was mended and skipped in each data set."""
    classes = cfg.DATASETS.CLASSES
    if classes:
        logger.info(f"The model's {len(classes)} classes: {', '.join(classes)}")
    reading = Reading.of(cfg)
    for name in run_datasets(cfg, eval_only=eval_only):
        if find_spec(name) is None:
            continue
        loaded = load_data(name, reading)
        data = loaded.data
        table = loaded.findings.as_text()
        logger.info(
            f"{name}: {len(data.images)} images, {data.count_as_text()}"
            + (f"\n{table}" if table else "")
        )
