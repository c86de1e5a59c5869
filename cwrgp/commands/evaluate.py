"""Probes of a finished encoder: `run_evaluation`, `evaluate` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.labelled import Labelled
from cwrgp.builders.probes import PROBES, Outcome
from cwrgp.checkpoints.formats import BRANCHES, source_names
from cwrgp.checkpoints.load import Origin, load_encoder
from cwrgp.cli import (
    add_checkpoint_arguments,
    add_config_arguments,
    add_num_gpus,
    load_config,
    make_parser,
    run_main,
)
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import get_cfg, validate_cfg
from cwrgp.config_files import PRETRAINING, read_config
from cwrgp.engine.checkpoint import write_atomically
from cwrgp.engine.precision import chosen_dtype
from cwrgp.launch import launch, local_device

logger = logging.getLogger("cwrgp")

_DESCRIPTION = """\
Probes an encoder with labels, as papers do: nearest neighbours, linear, fine-tuning.

  %(prog)s --config-file pretrain/cifar10_cwrgp4_r18.yaml \\
      --weights output/cifar10_cwrgp4_r18/model_final.pth knn DATA.ROOT data
  torchrun --nproc_per_node 4 --no-python cwrgp-evaluate --config-file FILE --weights FILE linear

--weights takes this project's checkpoints and every format that cwrgp-convert --list shows.
What each probe is and what its numbers may be compared with: docs/evaluation.md."""


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
        logger.info("EVAL.MAX_IMAGES is for the probe of a run; here all images are used")
    encoder.to(device)
    if dtype != torch.float32:
        encoder.to(memory_format=torch.channels_last)
    outcome = PROBES[probe](Labelled(cfg, encoder, device))
    record = _record(cfg, probe, outcome, origin, dtype)
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
    cfg: CfgNode, probe: str, outcome: Outcome, origin: Origin, dtype: torch.dtype
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
        "dtype": str(dtype).removeprefix("torch."),
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


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        probe: name of the probe.
        top1: accuracy in per cent.
        top5: in per cent; None for ``knn``.
        record: all of it: the images, the weights with their digest, the settings, the versions.
        output: the file with ``record``; None if none was asked for.
    """

    probe: str
    top1: float
    top5: float | None
    record: dict[str, Any]
    output: Path | None


def evaluate(
    config: str | PathLike[str] | CfgNode,
    probe: str,
    weights: str | PathLike[str],
    *,
    data_root: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    source: str = "auto",
    branch: str | None = None,
    unsafe: bool = False,
    num_gpus: int | None = None,
    **overrides: Any,
) -> Evaluation:
    """Probes an encoder with labels: ``cwrgp-evaluate`` as a function.

    Example::

        cwrgp.evaluate(
            "pretrain/cifar10_cwrgp4_r18.yaml", "knn", "model_final.pth", data_root="data"
        ).top1

    Args:
        config: name of a packaged config, path of a YAML file, or a config from
            `cwrgp.config.get_cfg`, which is not changed.
        probe: ``knn``, ``linear``, ``lbfgs`` or ``finetune``; see docs/evaluation.md.
        weights: a file, a URL, ``cwrgp://NAME``, or ``random`` (a baseline).
        data_root: ``DATA.ROOT``; None leaves the config's.
        output: ``NAME.json`` for the result.
        source: format of the weights; "auto" detects it.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        unsafe: lets the weights' file run code: only for files that you made.
        num_gpus: processes on this machine, one for each GPU; None: one, or those of torchrun.
            With several, the calling script needs its ``if __name__ == "__main__":``.
        **overrides: keys of the config. Sections are dicts, as in YAML: ``EVAL={"KNN_K": 20}``.

    Raises:
        ValueError: an unknown probe or key, a value that cannot work, or weights that do not fit.
        FileNotFoundError: no such config, weights or data.
        FloatingPointError: a training diverged.
    """
    if probe not in PROBES:
        raise ValueError(f"probe {probe!r} is unknown; choose one of {', '.join(PROBES)}")
    overrides |= {} if data_root is None else {"DATA.ROOT": data_root}
    cfg = read_config(get_cfg(), config, overrides)
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside, "result.json") if output is None else Path(output).expanduser()
        run = functools.partial(
            run_evaluation, source=source, branch=branch, unsafe=unsafe, output=str(file)
        )
        record = launch(run, num_gpus, (cfg, probe, str(weights)))
        if record is None:  # processes of its own return nothing
            record = json.loads(file.read_text(encoding="utf-8"))
    return Evaluation(
        probe, record["top1"], record["top5"], record, None if output is None else file
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-evaluate", _DESCRIPTION)
    parser.add_argument(
        "--weights", required=True, help="a file, a URL, cwrgp://NAME, or random (a baseline)"
    )
    add_checkpoint_arguments(parser, source_names(), BRANCHES)
    add_num_gpus(parser)
    parser.add_argument("--output", metavar="FILE.json", help="write the result as JSON")
    parser.add_argument("probe", choices=PROBES)
    add_config_arguments(parser, PRETRAINING)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-evaluate``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    launch(_worker, args.num_gpus, (args,))


def _worker(args: argparse.Namespace) -> None:
    is_main = get_rank() == 0
    handler = logging.StreamHandler()  # to stderr: stdout has the result
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    try:
        cfg = get_cfg()
        load_config(cfg, args.config_file, args.opts)
        record = run_evaluation(
            cfg,
            args.probe,
            args.weights,
            source=args.source,
            branch=args.branch,
            unsafe=args.unsafe_load,
            output=args.output,
        )
    finally:
        logger.removeHandler(handler)
    if is_main:
        print(as_line(record))
