"""EVAL: the probes of a finished encoder, as tools/evaluate.py runs them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.labelled import Labelled
from cwrgp.builders.probes import PROBES, Outcome
from cwrgp.builders.solver import build_precision
from cwrgp.checkpoints.load import Origin, load_encoder
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import validate_cfg
from cwrgp.engine.checkpoint import write_atomically
from cwrgp.engine.precision import Precision
from cwrgp.launch import local_device

logger = logging.getLogger("cwrgp")


def run_evaluation(
    cfg: CfgNode,
    probe: str,
    weights: str,
    *,
    source: str = "auto",
    branch: str | None = None,
    unsafe: bool = False,
    output: str | None = None,
) -> dict[str, Any]:
    """Probes an encoder; on every process, which get the same answer.

    Args:
        cfg: merged; validated and frozen here.
        probe: a key of :data:`PROBES`.
        weights: what :func:`load_encoder` takes, with ``source``, ``branch`` and ``unsafe``.
        output: NAME.json for the result; fine-tuning writes NAME.images.txt beside it, the images
            that it learnt from.

    Returns:
        The result as it is written: plain values.

    Raises:
        ValueError: a value that cannot work, or weights that do not fit.
        FileNotFoundError: missing weights or data.
        FloatingPointError: a training diverged.
    """
    validate_cfg(cfg)
    _validate(cfg)
    cfg.freeze()
    path = _checked_output(output)
    precision = build_precision(cfg, local_device())
    encoder, origin = load_encoder(
        weights,
        cfg.MODEL.ARCH,
        cfg.MODEL.STEM,
        source=source,
        branch=branch,
        unsafe=unsafe,
        seed=cfg.SEED,
    )
    for warning in origin.warnings:
        logger.warning("%s: %s", weights, warning)
    if cfg.EVAL.MAX_IMAGES:
        logger.info("EVAL.MAX_IMAGES is for the probe of a run; here all images are used")
    encoder.to(precision.device).to(memory_format=precision.memory_format)
    with precision.ieee_fp32():
        outcome = PROBES[probe](Labelled(cfg, encoder, precision))
    record = _record(cfg, probe, outcome, origin, precision)
    if path is not None and get_rank() == 0:
        _write(path, json.dumps(record, indent=2) + "\n")
        if outcome.subset is not None:
            _write(path.with_suffix(".images.txt"), "".join(f"{n}\n" for n in outcome.subset))
    return record


def as_line(record: dict[str, Any]) -> str:
    """A result in one line."""
    top5 = "-" if record["top5"] is None else f"{record['top5']:.2f}"
    sha256 = record["weights"]["sha256"]
    line = f"{record['probe']}  top-1 {record['top1']:.2f}  top-5 {top5}"
    if best := record.get("best"):
        line += f"  best {best['top1']:.2f} (epoch {best['epoch']})"
    line += f"  images {record['train_images']} / {record['test_images']}"
    return f"{line}  weights {sha256[:12] if sha256 else record['weights']['path']}"


def _record(
    cfg: CfgNode, probe: str, outcome: Outcome, origin: Origin, precision: Precision
) -> dict[str, Any]:
    section = {"knn": {"KNN_K": cfg.EVAL.KNN_K}, "lbfgs": {}}.get(probe)
    return {
        "probe": probe,
        **asdict(outcome.accuracy),
        **outcome.details,
        "train_images": outcome.train_images,
        "test_images": outcome.test_images,
        "weights": {**asdict(origin), "warnings": list(origin.warnings)},
        "arch": cfg.MODEL.ARCH,
        "stem": cfg.MODEL.STEM,
        "data": cfg.DATA.NAME,
        "settings": dict(cfg.EVAL[probe.upper()]) if section is None else section,
        "seed": cfg.SEED,
        "dtype": str(precision.dtype).removeprefix("torch."),
        "processes": get_world_size(),
        "torch": str(torch.__version__),
    }


def _validate(cfg: CfgNode) -> None:
    """What validate_cfg does not say of the probes' keys."""
    optimizers = ("adam", "sgd", "larc")
    linear = cfg.EVAL.LINEAR
    if linear.OPTIMIZER not in optimizers:
        raise ValueError(
            f"EVAL.LINEAR.OPTIMIZER {linear.OPTIMIZER!r} is unknown; choose one of {optimizers}"
        )
    for name in ("LINEAR", "FINETUNE"):
        section = cfg.EVAL[name]
        for key in ("EPOCHS", "BATCH_SIZE"):
            if section[key] < 1:
                raise ValueError(f"EVAL.{name}.{key} {section[key]} is below 1")
        if section.WEIGHT_DECAY < 0:
            raise ValueError(f"EVAL.{name}.WEIGHT_DECAY {section.WEIGHT_DECAY} is below 0")
    if linear.LR <= 0:
        raise ValueError(f"EVAL.LINEAR.LR {linear.LR} is not positive")
    if linear.FINAL_LR < 0 or (linear.OPTIMIZER == "adam" and linear.FINAL_LR == 0):
        raise ValueError(
            f"EVAL.LINEAR.FINAL_LR {linear.FINAL_LR} is not positive; 0 is for sgd and larc only"
        )
    if linear.STEPS and linear.OPTIMIZER == "adam":
        raise ValueError(f"EVAL.LINEAR.STEPS {linear.STEPS} is for sgd and larc; set OPTIMIZER")
    if list(linear.STEPS) != sorted({s for s in linear.STEPS if 0 < s < linear.EPOCHS}):
        raise ValueError(
            f"EVAL.LINEAR.STEPS {linear.STEPS} must rise between 0 and EPOCHS {linear.EPOCHS}"
        )
    for key in ("LR_CLASSIFIER", "LR_ENCODER"):
        if cfg.EVAL.FINETUNE[key] < 0:
            raise ValueError(f"EVAL.FINETUNE.{key} {cfg.EVAL.FINETUNE[key]} is below 0")


def _checked_output(output: str | None) -> Path | None:
    """Before the work, not after it."""
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.suffix != ".json":
        raise ValueError(f"--output {output} must end in .json")
    if path.is_dir():
        raise ValueError(f"--output {output} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
