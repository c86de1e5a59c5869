"""Evaluations of a small encoder on images of seven colours."""

from __future__ import annotations

from pathlib import Path

from cwrgp.cli import load_config
from cwrgp.commands.evaluate import run_evaluation
from cwrgp.config import get_cfg

CONFIG = """
DATA: {NUM_WORKERS: 0, IMAGE_SIZE: 32, PROBE_RESIZE: 32}
MODEL: {ARCH: resnet18}
SOLVER: {AMP: {ENABLED: False}}
EVAL:
  BATCH_SIZE: 8
  LINEAR: {EPOCHS: 8, BATCH_SIZE: 20}
  FINETUNE: {FRACTION: 0.5, EPOCHS: 8, BATCH_SIZE: 8}
"""
ON_IMAGES = ["EVAL.LINEAR.OPTIMIZER", "larc", "EVAL.LINEAR.LR", 0.4, "EVAL.LINEAR.FINAL_LR", 0.0,
             "EVAL.LINEAR.WEIGHT_DECAY", 0.0, "EVAL.LINEAR.EPOCHS", 2]  # fmt: skip
TRAIN, TEST, CLASSES = 7, 3, 7  # images of a class, odd on purpose


def run(place: Path, probe: str, *opts: object, weights: str | None = None, **options):
    cfg = get_cfg()
    opts = ("DATA.ROOT", place / "images", *opts)
    load_config(cfg, str(place / "config.yaml"), [str(opt) for opt in opts])
    return run_evaluation(cfg, probe, weights or str(place / "weights.pth"), **options)
