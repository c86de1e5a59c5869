"""The test set of trials, as their cells score by it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from d2_transfer.data.load import LoadedData
from d2_transfer.data.registry import find_spec, register_custom, register_named
from d2_transfer.evaluators import read_test_set
from d2_transfer.scoring.truth import Truth


def load_test_set(cfg: CfgNode) -> LoadedData:
    """The annotations of the test set, with the files of its images.

    Args:
        cfg: of the trials; ``DATASETS.CLASSES`` has the classes of their models.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the data cannot be used, or have no annotations.
    """
    register_custom(cfg.DATASETS.CUSTOM)
    register_named("DATASETS.TEST", cfg.DATASETS.TEST, cfg.DATASETS.SUBSET_SEED)
    name = cfg.DATASETS.TEST[0]
    loaded = read_test_set(cfg, name)
    if find_spec(name) is None:
        # Detectron2 reads these images itself; nothing has looked for them yet.
        root = Path(MetadataCatalog.get(name).image_root)
        for image in loaded.data.images:
            image.file = root / image.name
    return loaded


def digest_of(truth: Truth) -> str:
    """SHA-256 of what is scored: images, objects and classes."""
    objects = [[astuple(thing) for thing in image] for image in truth.voc or ()]
    text = json.dumps([truth.content, objects, truth.protocol], default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
