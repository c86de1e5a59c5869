"""A whole pretraining run: prepare, restore, train."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from cwrgp.builders.automatic import (
    describe_epochs,
    resolve_augmentation,
    resolve_epochs,
    resolve_number_format,
)
from cwrgp.builders.data import build_batches, build_normalize, build_pretraining_images
from cwrgp.builders.photos import UNREADABLE_FILE, check_photos, list_unreadable
from cwrgp.builders.run import Run, build_run
from cwrgp.builders.solver import build_precision
from cwrgp.builders.target_probe import build_target_probe
from cwrgp.builders.weights import report_weights
from cwrgp.checkpoints.own import unpack
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import unused_keys, validate_cfg
from cwrgp.data.samplers import StepSampler
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.loop import train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.progress import MetricWriter, log_of_a_run, setup_logging
from cwrgp.engine.resume import restore
from cwrgp.engine.step import StepConfig
from cwrgp.errors import NothingToResume
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import local_device
from cwrgp.preemption import StopRequest
from cwrgp.profiling import StepProfiler, check_steps_left
from cwrgp.shared_memory import worker_errors_end_the_run
from cwrgp.trackers.build import check_trackers, open_trackers
from cwrgp.trackers.jsonl import JsonlTracker

logger = logging.getLogger("cwrgp")

# With another value of these, the rest of a run would not be the rest of that run.
FIXED_KEYS = ("METHOD.NAME", "SEED", "SOLVER.BATCH_SIZE", "SOLVER.OPTIMIZER", "DATA.NAME")

# What the engine advises to change -> the key that changes it.
ADVICE_KEYS = {
    "learning rate": "SOLVER.BASE_LR",
    "eps": "METHOD.CWRGP.EPS or METHOD.WHITENING.EPS",
    "num_workers": "DATA.NUM_WORKERS",
    "crop scale": "AUGMENT.CROP_SCALE",
    "warm-up": "SOLVER.WARMUP_ITERS",
    "method": "METHOD.NAME",
    "embedding width": "MODEL.PROJECTOR.OUT",
}


@worker_errors_end_the_run("DATA.NUM_WORKERS")
def run_pretraining(
    cfg: CfgNode,
    *,
    resume: bool = False,
    eval_only: bool = False,
    or_start: bool = False,
    profile: bool = False,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """A whole run: from the configuration to ``OUTPUT_DIR/model_final.pth``.

    Args:
        cfg: merged; validated here, not changed.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        eval_only: evaluate that checkpoint, do not train.
        or_start: with ``resume``, start where there is none.
        profile: write a trace of a few steps and a table of their parts to OUTPUT_DIR.
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
    check_trackers(cfg.LOGGERS, "LOGGERS")
    if profile and eval_only:
        raise ValueError("profile=True profiles training steps; omit it, or eval_only=True")
    checkpoints = Checkpoints(cfg.OUTPUT_DIR, keep=cfg.CHECKPOINTS_TO_KEEP)
    state = _last_state(checkpoints, resume=resume, eval_only=eval_only, or_start=or_start)
    cfg = cfg.clone()
    cfg.defrost()
    device = local_device()
    saved = None if state is None else unpack(state, "the last checkpoint").config
    if not eval_only:
        resolve_augmentation(cfg, saved)
    images = build_pretraining_images(cfg)
    automatic_epochs = cfg.SOLVER.EPOCHS == 0
    resolve_epochs(cfg, saved, len(images))
    times = resolve_number_format(cfg, saved, device)
    cfg.freeze()
    precision = build_precision(cfg, device, reason=times)
    with precision.ieee_fp32(), log_of_a_run():
        probe = eval_only or cfg.EVAL.PERIOD > 0
        run = build_run(cfg, precision, images, probe=probe, new=state is None)
        start = _restore(run, checkpoints.folder, state, eval_only=eval_only)
        if eval_only:
            result = run.probe()
            logger.info("evaluation  %s", result or "none: the images have no labels")
            return result
        if start == run.plan.total_steps:
            logger.info("the run is finished, nothing is left to do")
            return {}
        if automatic_epochs and saved is None:
            logger.info(describe_epochs(cfg, len(images)))
        if run.weights is not None:
            report_weights(cfg, run.weights)
        elif cfg.MODEL.WEIGHTS:
            logger.info("MODEL.WEIGHTS is not read: the weights are those of the last checkpoint")
        check_photos(cfg, run.views.reader, checkpoints.folder)
        profiler = None
        if profile:
            check_steps_left(run.plan.total_steps - start)
            profiler = StepProfiler(checkpoints.folder, precision.device, logger)
        return _train(run, checkpoints, start, stop or StopRequest(), profiler)


def _last_state(
    checkpoints: Checkpoints, *, resume: bool, eval_only: bool, or_start: bool
) -> dict[str, Any] | None:
    """The content of the last checkpoint; None where the run starts.

    Raises:
        FileNotFoundError: there is no checkpoint, and one is wanted.
        ValueError: there is one, and none is wanted.
    """
    state = checkpoints.load_last()
    if state is None and (eval_only or (resume and not or_start)):
        missing = f"OUTPUT_DIR {checkpoints.folder} holds no checkpoint"
        if eval_only:
            raise FileNotFoundError(f"{missing} to evaluate")
        raise NothingToResume(f"{missing} to go on from; omit resume=True to start")
    if state is not None and not (resume or eval_only):
        raise ValueError(
            f"OUTPUT_DIR {checkpoints.folder} holds a run already; add resume=True, or choose "
            "another folder"
        )
    return state


def _restore(run: Run, folder: Path, state: dict[str, Any] | None, *, eval_only: bool) -> int:
    """Loads a checkpoint into the run, and opens its folder. Returns the first step.

    Raises:
        ValueError: the checkpoint does not fit.
    """
    cfg, total = run.cfg, run.plan.total_steps
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
            fixed=FIXED_KEYS,
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
            "%s on %d x %s in %s, %d images, %s views in %s, %d parameters, iterations %d to %d",
            cfg.METHOD.NAME,
            get_world_size(),
            run.precision.device.type,
            run.precision.describe(),
            len(run.views),
            cfg.AUGMENT.BACKEND,
            cfg.AUGMENT.DEVICE,
            sum(p.numel() for p in run.method.parameters()),
            start + 1,
            total,
        )
    return start


def _train(
    run: Run,
    checkpoints: Checkpoints,
    start: int,
    stop: StopRequest,
    profiler: StepProfiler | None,
) -> dict[str, float]:
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
    batches = build_batches(cfg, run.views, sampler, device)
    probe = build_target_probe(run)
    normalize = build_normalize(cfg, device)
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
                normalize=normalize,
                precision=run.precision,
                scaler=run.scaler,
                accumulate=cfg.SOLVER.ACCUMULATE,
                seed=cfg.SEED,
            ),
            start_step=start,
            checkpoints=checkpoints if get_rank() == 0 else None,
            config=cfg.dump(),
            writer=writer,
            monitor=TrainingMonitor(num_workers=_num_workers(cfg), keys=ADVICE_KEYS),
            evaluate=evaluate,
            probe=probe,
            stop=stop,
            profiler=profiler,
        )
    if skipped := list_unreadable(run.views.reader, checkpoints.folder):
        logger.warning(
            "%d of %d images could not be read and were replaced; %s lists them",
            skipped,
            len(run.views),
            checkpoints.folder / UNREADABLE_FILE,
        )
    return result


def _num_workers(cfg: CfgNode) -> int | None:
    return cfg.DATA.NUM_WORKERS if cfg.AUGMENT.DEVICE == "workers" else None


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
