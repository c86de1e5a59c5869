"""Pretraining: `run_pretraining` from a config, `pretrain` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_normalize, build_views
from cwrgp.builders.methods import build_method
from cwrgp.builders.probes import build_probe
from cwrgp.builders.solver import build_learning_rate, build_plan
from cwrgp.cli import add_config_arguments, add_num_gpus, load_config, make_parser, run_main
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import get_cfg, validate_cfg
from cwrgp.config_files import PRETRAINING, read_config
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.loop import Step, train
from cwrgp.engine.metrics import MetricWriter, setup_logging
from cwrgp.engine.optimizers import build_optimizer
from cwrgp.engine.precision import autocast, build_scaler, chosen_dtype
from cwrgp.engine.resume import restore
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import launch, local_device
from cwrgp.models.batch_norm import synchronize_batch_norm
from cwrgp.preemption import EXIT_CODE, Preempted, StopRequest, stop_request
from cwrgp.shared_memory import worker_errors_end_the_run
from cwrgp.trackers.jsonl import read_metrics

logger = logging.getLogger("cwrgp")

_DESCRIPTION = """\
Pretrains a ResNet without labels. --list-configs shows the recipes.

  %(prog)s --config-file pretrain/cifar10_cwrgp4_r18.yaml DATA.ROOT data
  %(prog)s --num-gpus 4 --config-file pretrain/imagenet_cwrgp4_r50_200ep.yaml DATA.ROOT imagenet
  torchrun --nproc_per_node 4 --no-python cwrgp-pretrain --config-file FILE

On SIGTERM or SIGUSR1 the run finishes its step, saves, and exits with code 75."""


@worker_errors_end_the_run("DATA.NUM_WORKERS")
def run_pretraining(
    cfg: CfgNode,
    *,
    resume: bool = False,
    eval_only: bool = False,
    or_start: bool = False,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """A whole run: from the configuration to ``OUTPUT_DIR/model_final.pth``.

    Args:
        cfg: merged; validated and frozen here.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        eval_only: evaluate that checkpoint, do not train.
        or_start: with ``resume``, start where there is none.
        stop: whether a signal has asked the run to stop; None: nothing does.

    Returns:
        The last evaluation.

    Raises:
        ValueError: a value that cannot work.
        FileNotFoundError: missing data, or nothing to resume or evaluate.
        WorkerError: a data loader worker died, or the shared memory is too small.
        Preempted: a signal asked the run to stop; what was trained is saved.
    """
    validate_cfg(cfg)
    cfg.freeze()
    main = get_rank() == 0
    device = local_device()
    dtype = chosen_dtype(device, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE)
    fast = dtype != torch.float32
    memory_format = torch.channels_last if fast else torch.contiguous_format
    scaler = build_scaler(device, dtype)

    views = build_views(cfg)
    plan = build_plan(cfg, len(views))
    learning_rate = build_learning_rate(cfg, plan)
    method = build_method(cfg).to(device).to(memory_format=memory_format)
    synchronize_batch_norm(method, device)
    optimizer = build_optimizer(
        cfg.SOLVER.OPTIMIZER,
        method,
        lr=learning_rate(0),
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        momentum=cfg.SOLVER.MOMENTUM,
        decay_bias_and_norm=cfg.SOLVER.DECAY_BIAS_AND_NORM,
        trust=cfg.SOLVER.TRUST_COEFFICIENT,
    )
    probe = build_probe(cfg, method.encoder, device)

    folder = Path(cfg.OUTPUT_DIR)
    checkpoints = Checkpoints(folder, keep=cfg.CHECKPOINTS_TO_KEEP)
    state = checkpoints.load_last()
    if state is None and (eval_only or (resume and not or_start)):
        raise FileNotFoundError(
            f"OUTPUT_DIR {folder} holds no checkpoint to go on from; leave --resume away to start, "
            "or give --resume-or-start"
        )
    if state is not None and not (resume or eval_only):
        raise ValueError(
            f"OUTPUT_DIR {folder} holds a run already; add --resume, or choose another folder"
        )
    if main:
        folder.mkdir(parents=True, exist_ok=True)
    setup_logging(folder if main else None)
    start = 0
    if state is not None:
        start = restore(state, method, optimizer, scaler, config=cfg.dump(), num_images=len(views))
    if start > plan.total_steps and not eval_only:
        raise ValueError(
            f"the last checkpoint is of iteration {start}, SOLVER.EPOCHS {cfg.SOLVER.EPOCHS} ends "
            f"at {plan.total_steps}; train longer, or choose another OUTPUT_DIR"
        )
    if main and not eval_only:
        write_text(folder / "config.yaml", cfg.dump())
    if start == plan.total_steps and not eval_only:
        logger.info("the run is finished, nothing is left to do")
        return {}
    logger.info(
        "%s on %d x %s in %s, %d images, %d parameters, iterations %d to %d",
        cfg.METHOD.NAME,
        get_world_size(),
        device.type,
        str(dtype).removeprefix("torch."),
        len(views),
        sum(p.numel() for p in method.parameters()),
        start + 1,
        plan.total_steps,
    )
    if eval_only:
        result = probe()
        logger.info("evaluation  %s", result or "none: the images have no labels")
        return result

    result = {}

    def evaluate() -> dict[str, float]:
        result.update(probe())
        return result

    sampler = StepSampler(
        len(views),
        cfg.SOLVER.BATCH_SIZE,
        start_step=start,
        total_steps=plan.total_steps,
        seed=cfg.SEED,
        rank=get_rank(),
        world_size=get_world_size(),
    )
    batches = iterate_views(
        views, sampler, num_workers=cfg.DATA.NUM_WORKERS, pin_memory=device.type == "cuda"
    )
    writer = MetricWriter(
        folder,
        start_step=start,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
    ) if main else None  # fmt: skip
    shown = writer.shown() if writer is not None else contextlib.nullcontext()
    with shown, contextlib.closing(batches):
        train(
            method,
            optimizer,
            batches,
            plan=plan,
            how=Step(
                learning_rate=learning_rate,
                normalize=build_normalize(cfg, device),
                device=device,
                autocast=autocast(device, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE),
                scaler=scaler,
                memory_format=memory_format,
                accumulate=cfg.SOLVER.ACCUMULATE,
                seed=cfg.SEED,
            ),
            start_step=start,
            checkpoints=checkpoints if main else None,
            config=cfg.dump(),
            writer=writer,
            evaluate=evaluate,
            num_workers=cfg.DATA.NUM_WORKERS,
            stop=stop or StopRequest(),
        )
    skipped = len(views.reader.unreadable)
    if skipped:
        logger.warning("%d of %d images could not be read and were replaced", skipped, len(views))
    return result


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
    metrics = launch(functools.partial(run_pretraining, resume=resume), num_gpus, (cfg,))
    # Nothing is returned by processes of its own, nor if there was nothing left to train.
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
    add_config_arguments(parser, PRETRAINING)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-pretrain``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> int:
    try:
        launch(_worker, args.num_gpus, (args,))
    except Preempted as told:
        print(f"{told}; --resume-or-start continues", file=sys.stderr)
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
            stop=stop,
        )


def _last_evaluation(folder: Path) -> dict[str, float]:
    """The last values of the probe in ``metrics.json``."""
    records = read_metrics(folder / "metrics.json")
    return {k: v for record in records for k, v in record.items() if k.startswith("knn")}
