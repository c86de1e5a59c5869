"""A whole pretraining run: `run_pretraining`, `pretrain` from Python, `main` from a shell."""

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

import yaml
from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_normalize
from cwrgp.builders.run import Run, build_run
from cwrgp.builders.solver import build_precision
from cwrgp.cli import add_config_arguments, add_num_gpus, load_config, make_parser, run_main
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import get_cfg, unused_keys, validate_cfg
from cwrgp.config_files import PRETRAINING, read_config
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.engine.loop import StepConfig, train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.progress import MetricWriter, log_of_a_run, setup_logging
from cwrgp.engine.resume import restore
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import launch, local_device
from cwrgp.preemption import EXIT_CODE, Preempted, StopRequest, stop_request
from cwrgp.shared_memory import worker_errors_end_the_run
from cwrgp.trackers.build import check_trackers, open_trackers
from cwrgp.trackers.jsonl import JsonlTracker, read_metrics

logger = logging.getLogger("cwrgp")

_DESCRIPTION = """\
Pretrains a ResNet without labels. --list-configs shows the recipes.

  %(prog)s --config-file pretrain/cifar10_cwrgp4_r18.yaml DATA.ROOT data
  %(prog)s --num-gpus 4 --config-file pretrain/imagenet_cwrgp4_r50_200ep.yaml DATA.ROOT imagenet
  torchrun --nproc_per_node 4 --no-python cwrgp-pretrain --config-file FILE

On SIGTERM or SIGUSR1 the run finishes its step, saves, and exits with code 75."""

# What the engine advises to change -> the key that changes it.
ADVICE_KEYS = {
    "learning rate": "SOLVER.BASE_LR",
    "eps": "METHOD.CWRGP.EPS or METHOD.WHITENING.EPS",
    "num_workers": "DATA.NUM_WORKERS",
    "crop scale": "AUGMENT.CROP_SCALE",
}


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
        FloatingPointError: the run diverged.
        WorkerError: a data loader worker died, or the shared memory is too small.
        Preempted: a signal asked the run to stop; what was trained is saved.
    """
    validate_cfg(cfg)
    check_trackers(cfg.LOGGERS)
    cfg.freeze()
    precision = build_precision(cfg, local_device())
    with precision.ieee_fp32(), log_of_a_run():
        run = build_run(cfg, precision, probe=eval_only or cfg.EVAL.PERIOD > 0)
        start = _restore(run, resume=resume, eval_only=eval_only, or_start=or_start)
        if eval_only:
            result = run.probe()
            logger.info("evaluation  %s", result or "none: the images have no labels")
            return result
        if start == run.plan.total_steps:
            logger.info("the run is finished, nothing is left to do")
            return {}
        return _train(run, start, stop or StopRequest())


def _restore(run: Run, *, resume: bool, eval_only: bool, or_start: bool) -> int:
    """Loads the last checkpoint where one is wanted, and opens OUTPUT_DIR. Returns the first step.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: there is one that is not wanted, or does not fit.
    """
    cfg, folder, total = run.cfg, run.checkpoints.folder, run.plan.total_steps
    state = run.checkpoints.load_last()
    if state is None and (eval_only or (resume and not or_start)):
        raise FileNotFoundError(
            f"OUTPUT_DIR {folder} holds no checkpoint to go on from; omit --resume to start, or "
            "give --resume-or-start"
        )
    if state is not None and not (resume or eval_only):
        raise ValueError(
            f"OUTPUT_DIR {folder} holds a run already; add --resume, or choose another folder"
        )
    if get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    setup_logging(folder if get_rank() == 0 else None)
    start = 0
    if state is not None:
        start = restore(
            state,
            run.method,
            run.optimizer,
            run.scaler,
            config=cfg.dump(),
            num_images=len(run.views),
        )
    if start > total and not eval_only:
        raise ValueError(
            f"the last checkpoint is of iteration {start}, SOLVER.EPOCHS {cfg.SOLVER.EPOCHS} ends "
            f"at {total}; train longer, or choose another OUTPUT_DIR"
        )
    if get_rank() == 0 and not eval_only:
        write_text(folder / "config.yaml", cfg.dump())
    if start < total or eval_only:
        logger.info(
            "%s on %d x %s in %s, %d images, %d parameters, iterations %d to %d",
            cfg.METHOD.NAME,
            get_world_size(),
            run.precision.device.type,
            run.precision.describe(),
            len(run.views),
            sum(p.numel() for p in run.method.parameters()),
            start + 1,
            total,
        )
    return start


def _train(run: Run, start: int, stop: StopRequest) -> dict[str, float]:
    """Trains from a step to the end. Returns the last evaluation."""
    cfg, plan, device = run.cfg, run.plan, run.precision.device
    result: dict[str, float] = {}

    def evaluate() -> dict[str, float]:
        result.update(run.probe())
        return result

    sampler = StepSampler(
        len(run.views),
        cfg.SOLVER.BATCH_SIZE,
        start_step=start,
        total_steps=plan.total_steps,
        seed=cfg.SEED,
        rank=get_rank(),
        world_size=get_world_size(),
    )
    batches = iterate_views(
        run.views, sampler, num_workers=cfg.DATA.NUM_WORKERS, pin_memory=device.type == "cuda"
    )
    writer = _open_writer(run, start) if get_rank() == 0 else None
    # By now everything is built. The sections of other commands may stand in the same file.
    unused = unused_keys(cfg, pairs_only=("EVAL.LINEAR.", "EVAL.FINETUNE."))
    if unused and get_rank() == 0:
        logger.warning("keys without effect in this run: %s", ", ".join(unused))
    shown = writer.shown() if writer is not None else contextlib.nullcontext()
    with shown, contextlib.closing(batches):
        train(
            run.method,
            run.optimizer,
            batches,
            plan=plan,
            step_config=StepConfig(
                learning_rate=run.learning_rate,
                normalize=build_normalize(cfg, device),
                precision=run.precision,
                scaler=run.scaler,
                accumulate=cfg.SOLVER.ACCUMULATE,
                seed=cfg.SEED,
            ),
            start_step=start,
            checkpoints=run.checkpoints if get_rank() == 0 else None,
            config=cfg.dump(),
            writer=writer,
            monitor=TrainingMonitor(num_workers=cfg.DATA.NUM_WORKERS, keys=ADVICE_KEYS),
            evaluate=evaluate,
            stop=stop,
        )
    if skipped := len(run.views.reader.unreadable):
        logger.warning(
            "%d of %d images could not be read and were replaced", skipped, len(run.views)
        )
    return result


def _open_writer(run: Run, start: int) -> MetricWriter:
    folder, config = Path(run.cfg.OUTPUT_DIR), yaml.safe_load(run.cfg.dump())
    return MetricWriter(
        [
            JsonlTracker(folder, start_step=start, config=config),
            *open_trackers(run.cfg.LOGGERS, folder, start_step=start, config=config),
        ],
        start_step=start,
        total_steps=run.plan.total_steps,
        steps_per_epoch=run.plan.steps_per_epoch,
    )


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
