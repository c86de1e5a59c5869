"""Configs as they are once their data sets are read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2_transfer.config import get_cfg, validate_cfg
from d2_transfer.data.registry import register_named
from d2_transfer.data.settle import settle_datasets

_numbers = itertools.count()


def new_name() -> str:
    """Detectron2's catalog is global: every test takes other names."""
    return f"scenes_{next(_numbers)}"


def settle(
    train: tuple[str, ...], test: tuple[str, ...] = (), *, eval_only: bool = False, **options: Any
) -> Any:
    """The config of a run on registered data sets, as it is before training."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = options.pop("masks", False)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test or train
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    for key in ("TRAIN", "TEST"):
        register_named(f"DATASETS.{key}", cfg.DATASETS[key], cfg.DATASETS.SUBSET_SEED)
    validate_cfg(cfg, eval_only=eval_only)
    settle_datasets(cfg, eval_only=eval_only)
    return cfg


def changed_coco(
    scenes: Any, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """An entry of the scenes with another annotation file."""
    content = json.loads((scenes.root / "coco.json").read_text())
    change(content)
    path = tmp_path / f"{next(_numbers)}.json"
    path.write_text(json.dumps(content))
    return scenes.coco(new_name(), path)
