"""EVAL: the probes of a finished encoder, as tools/evaluate.py runs them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.probes import PROBES, ProbeResult, build_probe_data
from cwrgp.checkpoints.load import Origin, load_encoder
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import validate_cfg
from cwrgp.engine.precision import chosen_dtype
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import local_device
from cwrgp.shared_memory import worker_errors_end_the_run

logger = logging.getLogger("cwrgp")


@worker_errors_end_the_run("DATA.NUM_WORKERS")
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
    """Probes an encoder. Every process takes part and gets the same result.

    Args:
        cfg: merged; validated and frozen here.
        probe: a key of :data:`PROBES`.
        weights: what :func:`load_encoder` takes, with ``source``, ``branch`` and ``unsafe``.
        output: NAME.json for the result. Fine-tuning also writes NAME.images.txt, the names of the
            images that it learnt from.

    Returns:
        The content of NAME.json: plain values.

    Raises:
        ValueError: a value that cannot work, or weights that do not fit.
        FileNotFoundError: missing weights or data.
        FloatingPointError: a training diverged.
        WorkerError: a data loader worker died, or the shared memory is too small.
    """
    validate_cfg(cfg)
    _check_combinations(cfg)
    cfg.freeze()
    path = _checked_output(output)
    device = local_device()
    dtype = chosen_dtype(device, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE)
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
        logger.info("EVAL.MAX_IMAGES is for the probe during a run; here all images are used")
    encoder.to(device)
    if dtype != torch.float32:
        encoder.to(memory_format=torch.channels_last)
    data = build_probe_data(cfg, encoder, device)
    for warning in data.warnings:
        logger.warning(warning)
    result = PROBES[probe](cfg, data)
    record = _record(cfg, probe, result, origin, dtype)
    if path is not None and get_rank() == 0:
        write_text(path, json.dumps(record, indent=2) + "\n")
        if result.subset is not None:
            write_text(path.with_suffix(".images.txt"), "".join(f"{n}\n" for n in result.subset))
    return record


def as_line(record: dict[str, Any]) -> str:
    """A result as one line of text."""
    top5 = "-" if record["top5"] is None else f"{record['top5']:.2f}"
    sha256 = record["weights"]["sha256"]
    line = f"{record['probe']}  top-1 {record['top1']:.2f}  top-5 {top5}"
    if best := record.get("best"):
        line += f"  best {best['top1']:.2f} (epoch {best['epoch']})"
    line += f"  images {record['train_images']} / {record['test_images']}"
    return f"{line}  weights {sha256[:12] if sha256 else record['weights']['path']}"


def _record(
    cfg: CfgNode, probe: str, result: ProbeResult, origin: Origin, dtype: torch.dtype
) -> dict[str, Any]:
    section = {"knn": {"KNN_K": cfg.EVAL.KNN_K}, "lbfgs": {}}.get(probe)
    return {
        "probe": result.protocol,
        **asdict(result.accuracy),
        **result.details,
        "train_images": result.train_images,
        "test_images": result.test_images,
        "weights": {**asdict(origin), "warnings": list(origin.warnings)},
        "arch": cfg.MODEL.ARCH,
        "stem": cfg.MODEL.STEM,
        "data": cfg.DATA.NAME,
        "settings": dict(cfg.EVAL[probe.upper()]) if section is None else section,
        "seed": cfg.SEED,
        "dtype": str(dtype).removeprefix("torch."),
        "processes": get_world_size(),
        "torch": str(torch.__version__),
    }


def _check_combinations(cfg: CfgNode) -> None:
    """The keys of the linear probe that must fit each other."""
    linear = cfg.EVAL.LINEAR
    if linear.OPTIMIZER == "adam":
        if linear.FINAL_LR == 0:
            raise ValueError(
                "EVAL.LINEAR.FINAL_LR 0.0 is not positive; 0 is for OPTIMIZER sgd and larc only"
            )
        if linear.STEPS:
            raise ValueError(
                f"EVAL.LINEAR.STEPS {linear.STEPS} is for OPTIMIZER sgd and larc, not for adam"
            )
    if list(linear.STEPS) != sorted({s for s in linear.STEPS if 0 < s < linear.EPOCHS}):
        raise ValueError(
            f"EVAL.LINEAR.STEPS {linear.STEPS} must be in ascending order between 0 and "
            f"EVAL.LINEAR.EPOCHS {linear.EPOCHS}"
        )


def _checked_output(output: str | None) -> Path | None:
    """The path of ``--output``, checked before the work and not after it."""
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.suffix != ".json":
        raise ValueError(f"--output {output} must end in .json")
    if path.is_dir():
        raise ValueError(f"--output {output} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
