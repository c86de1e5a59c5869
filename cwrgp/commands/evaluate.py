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

from cwrgp.builders.probes import ProbeResult, build_probe_data
from cwrgp.builders.solver import build_precision
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
from cwrgp.commands.probes import PROBES
from cwrgp.config import get_cfg, unused_keys, validate_cfg
from cwrgp.config_files import PRETRAINING, read_config
from cwrgp.engine.precision import Precision
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import launch, local_device
from cwrgp.shared_memory import worker_errors_end_the_run

logger = logging.getLogger("cwrgp")

_DESCRIPTION = """\
Probes an encoder with labels, as papers do: nearest neighbours, linear, fine-tuning.

  %(prog)s --config-file pretrain/cifar10_cwrgp4_r18.yaml \\
      --weights output/cifar10_cwrgp4_r18/model_final.pth knn DATA.ROOT data
  torchrun --nproc_per_node 4 --no-python cwrgp-evaluate --config-file FILE --weights FILE linear

--weights takes this project's checkpoints and every format that cwrgp-convert --list shows.
What each probe is and what its numbers may be compared with: docs/evaluation.md."""


@worker_errors_end_the_run("DATA.NUM_WORKERS")
def run_evaluation(
    cfg: CfgNode,
    probe: str,
    weights: str,
    *,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    unsafe: bool = False,
    output: str | None = None,
) -> dict[str, Any]:
    """Probes an encoder. Every process takes part and gets the same result.

    Args:
        cfg: merged; validated and frozen here.
        probe: a key of :data:`PROBES`.
        weights: what :func:`load_encoder` takes, with ``source``, ``branch``, ``prefix``
            and ``unsafe``.
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
    cfg.freeze()
    path = _checked_output(output)
    precision = build_precision(cfg, local_device())
    encoder, origin = load_encoder(
        weights,
        cfg.MODEL.ARCH,
        cfg.MODEL.STEM,
        source=source,
        branch=branch,
        prefix=prefix,
        unsafe=unsafe,
        seed=cfg.SEED,
        keys=("MODEL.ARCH", "MODEL.STEM"),
    )
    for warning in origin.warnings:
        logger.warning("%s: %s", weights, warning)
    if cfg.EVAL.MAX_IMAGES:
        logger.info("EVAL.MAX_IMAGES is for the probe during a run; here all images are used")
    encoder.to(precision.device).to(memory_format=precision.memory_format)
    data = build_probe_data(cfg, encoder, precision)
    for warning in data.warnings:
        logger.warning(warning)
    with precision.ieee_fp32():
        result = PROBES[probe](cfg, data)
    if unused := unused_keys(cfg, pairs_only=("",)):  # the file is that of a pretraining run
        logger.warning("keys without effect for the probe %s: %s", probe, ", ".join(unused))
    record = _record(cfg, probe, result, origin, precision)
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
    cfg: CfgNode, probe: str, result: ProbeResult, origin: Origin, precision: Precision
) -> dict[str, Any]:
    weights = {**asdict(origin), "warnings": list(origin.warnings)}
    del weights["pixels"]
    section = {"knn": {"KNN_K": cfg.EVAL.KNN_K}, "lbfgs": {}}.get(probe)
    return {
        "probe": result.protocol,
        **asdict(result.accuracy),
        **result.details,
        "train_images": result.train_images,
        "test_images": result.test_images,
        "weights": weights,
        "arch": cfg.MODEL.ARCH,
        "stem": cfg.MODEL.STEM,
        "data": cfg.DATA.NAME,
        "settings": dict(cfg.EVAL[probe.upper()]) if section is None else section,
        "seed": cfg.SEED,
        "dtype": str(precision.dtype).removeprefix("torch."),
        "processes": get_world_size(),
        "torch": str(torch.__version__),
    }


def _checked_output(output: str | None) -> Path | None:
    """The path of ``output``, checked before the work and not after it."""
    if output is None:
        return None
    path = Path(output).expanduser()
    if path.suffix != ".json":
        raise ValueError(f"output {output} must end in .json")
    if path.is_dir():
        raise ValueError(f"output {output} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        probe: name of the probe; ``knn_leave_one_out`` if there are no held-out images.
        top1: accuracy in per cent.
        top5: in per cent; None for ``knn``.
        record: all of it: the images, the weights with their digest, the settings, the versions.
        output: the file with ``record``; None if ``output`` was None.
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
    prefix: str | None = None,
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
        weights: a file, a URL, ``cwrgp://NAME``, ``hf://OWNER/NAME``, or ``random`` (a baseline).
        data_root: ``DATA.ROOT``; None leaves the config's.
        output: ``NAME.json`` for the result.
        source: format of the weights; "auto" detects it.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        prefix: what the network's names begin with, where the file has several networks and no
            known format.
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
            run_evaluation,
            source=source,
            branch=branch,
            prefix=prefix,
            unsafe=unsafe,
            output=str(file),
        )
        record = launch(run, num_gpus, (cfg, probe, str(weights)))
        if record is None:  # spawned processes return nothing
            record = json.loads(file.read_text(encoding="utf-8"))
    return Evaluation(
        record["probe"], record["top1"], record["top5"], record, None if output is None else file
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-evaluate", _DESCRIPTION)
    parser.add_argument(
        "--weights",
        required=True,
        help="a file, a URL, cwrgp://NAME, hf://OWNER/NAME, or random (a baseline)",
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
            prefix=args.prefix,
            unsafe=args.unsafe,
            output=args.output,
        )
    finally:
        logger.removeHandler(handler)
    if is_main:
        print(as_line(record))
