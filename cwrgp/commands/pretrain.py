"""Pretraining: `pretrain` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.cli import (
    add_config_arguments,
    add_num_gpus,
    add_profile,
    load_config,
    make_parser,
    run_main,
)
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.config_files import PRETRAINING, read_config
from cwrgp.launch import launch
from cwrgp.preemption import EXIT_CODE, Preempted, stop_request
from cwrgp.trackers.jsonl import read_metrics

_DESCRIPTION = """\
Pretrains a ResNet without labels. --list-configs shows the recipes.

  %(prog)s --config-file pretrain/cifar10_cwrgp4_r18.yaml DATA.ROOT data
  %(prog)s --num-gpus 4 --config-file pretrain/imagenet_cwrgp4_r50_200ep.yaml DATA.ROOT imagenet
  torchrun --nproc_per_node 4 --no-python cwrgp-pretrain --config-file FILE

On SIGTERM or SIGUSR1 the run finishes its step, saves, and exits with code 75."""


@dataclass(frozen=True)
class Pretraining:
    """What `pretrain` wrote.

    Attributes:
        output_dir: folder of the run.
        checkpoint: ``model_final.pth`` in it.
        metrics: of the last evaluation, name -> value; {} if the images have no labels.
    """

    output_dir: Path
    checkpoint: Path
    metrics: dict[str, float]


def pretrain(
    config: str | PathLike[str] | CfgNode,
    *,
    data_root: str | PathLike[str] | None = None,
    output_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    profile: bool = False,
    **overrides: Any,
) -> Pretraining:
    """Pretrains a ResNet without labels: ``cwrgp-pretrain`` as a function.

    Example::

        cwrgp.pretrain(
            "pretrain/cifar10_cwrgp4_r18.yaml", data_root="data", SOLVER={"EPOCHS": 200}, SEED=1
        )

    Args:
        config: name of a packaged config, path of a YAML file, or a config from
            `cwrgp.config.get_cfg`, which is not changed.
        data_root: ``DATA.ROOT``; None leaves the config's.
        output_dir: ``OUTPUT_DIR``; None leaves the config's.
        resume: go on from the last checkpoint of the output folder.
        num_gpus: processes on this machine, one for each GPU; None: one, or those of torchrun.
            With several, the calling script needs its ``if __name__ == "__main__":``.
        profile: write a trace of a few steps and a table of their parts into the output folder;
            the run goes on.
        **overrides: keys of the config. Sections are dicts, as in YAML: ``SOLVER={"EPOCHS": 200}``.

    Returns:
        The folder, the checkpoint and the last evaluation.

    Raises:
        ValueError: an unknown key, a value that cannot work, or an output folder that is in use.
        FileNotFoundError: no such config or data, or nothing to resume.
        FloatingPointError: the loss became infinite or NaN.
    """
    given = {"DATA.ROOT": data_root, "OUTPUT_DIR": output_dir}
    overrides |= {key: value for key, value in given.items() if value is not None}
    cfg = read_config(get_cfg(), config, overrides)
    folder = Path(cfg.OUTPUT_DIR)
    worker = functools.partial(run_pretraining, resume=resume, profile=profile)
    metrics = launch(worker, num_gpus, (cfg,))
    # Spawned processes return nothing, and neither does a run that was finished before.
    return Pretraining(folder, folder / "model_final.pth", metrics or _last_evaluation(folder))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-pretrain", _DESCRIPTION)
    add_num_gpus(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--resume-or-start",
        action="store_true",
        help="the same, or start if there is none: for jobs that requeue",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate the last checkpoint")
    add_profile(parser)
    add_config_arguments(parser, PRETRAINING)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-pretrain``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> int:
    try:
        launch(_worker, args.num_gpus, (args,))
    except Preempted as stopped:
        print(f"{stopped}; --resume-or-start continues", file=sys.stderr)
        return EXIT_CODE
    return 0


def _worker(args: argparse.Namespace) -> None:
    with stop_request() as stop:
        cfg = get_cfg()
        load_config(cfg, args.config_file, args.opts)
        run_pretraining(
            cfg,
            resume=args.resume or args.resume_or_start,
            eval_only=args.eval_only,
            or_start=args.resume_or_start,
            profile=args.profile,
            stop=stop,
        )


def _last_evaluation(folder: Path) -> dict[str, float]:
    """The last values of the probe in ``metrics.json``."""
    records = read_metrics(folder / "metrics.json")
    return {k: v for record in records for k, v in record.items() if k.startswith("knn")}
