"""A whole pretraining run, from the configuration to `model_final.pth`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_views
from cwrgp.builders.methods import build_method
from cwrgp.builders.probe import build_probe
from cwrgp.builders.solver import (
    build_learning_rate,
    build_plan,
    build_precision,
    build_solver,
)
from cwrgp.comm import get_rank, get_world_size
from cwrgp.config import validate_cfg
from cwrgp.data.augment import Normalize
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.data.views import Views
from cwrgp.engine.checkpoint import Checkpoints, write_atomically
from cwrgp.engine.loop import Plan, StepConfig, train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.precision import Precision
from cwrgp.engine.progress import MetricWriter, setup_logging
from cwrgp.engine.resume import restore
from cwrgp.launch import local_device
from cwrgp.models.batch_norm import synchronize_batch_norm
from cwrgp.models.methods import Method
from cwrgp.preemption import StopRequest
from cwrgp.trackers.build import check_trackers, open_trackers
from cwrgp.trackers.jsonl import JsonlTracker

logger = logging.getLogger("cwrgp")

# What the engine advises to change -> the key that changes it.
KEYS = {
    "learning rate": "SOLVER.BASE_LR",
    "eps": "METHOD.CWRGP.EPS or METHOD.WHITENING.EPS",
    "num_workers": "DATA.NUM_WORKERS",
    "crop scale": "AUGMENT.CROP_SCALE",
}


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
        Preempted: a signal asked the run to stop; what was trained is saved.
    """
    validate_cfg(cfg)
    check_trackers(cfg.LOGGERS)
    cfg.freeze()
    precision = build_precision(cfg, local_device())
    with precision.ieee_fp32():
        run = _prepare(cfg, precision)
        start = _restore(run, resume=resume, eval_only=eval_only, or_start=or_start)
        if eval_only:
            result = run.probe()
            logger.info("evaluation  %s", result or "none: the images have no labels")
            return result
        if start == run.plan.total_steps:
            logger.info("the run is finished, nothing is left to do")
            return {}
        return _train(run, start, stop or StopRequest())


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The objects of a run.

    Attributes:
        cfg: frozen.
        precision: number format and device.
        views: the images, augmented.
        plan: when things happen.
        learning_rate: of a step.
        method: on its device.
        optimizer: over its parameters.
        scaler: of its losses.
        probe: the k-NN accuracy of its encoder; {} without labels.
        checkpoints: of OUTPUT_DIR.
    """

    cfg: CfgNode
    precision: Precision
    views: Views
    plan: Plan
    learning_rate: Callable[[int], float]
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    probe: Callable[[], dict[str, float]]
    checkpoints: Checkpoints


def _prepare(cfg: CfgNode, precision: Precision) -> _Run:
    """Builds everything; reads no checkpoint and writes nothing."""
    views = build_views(cfg)
    plan = build_plan(cfg, len(views))
    learning_rate = build_learning_rate(cfg, plan)
    method = build_method(cfg).to(precision.device).to(memory_format=precision.memory_format)
    synchronize_batch_norm(method, precision.device)
    return _Run(
        cfg=cfg,
        precision=precision,
        views=views,
        plan=plan,
        learning_rate=learning_rate,
        method=method,
        optimizer=build_solver(cfg, method, learning_rate(0)),
        scaler=precision.scaler(),
        probe=build_probe(cfg, method.encoder, precision),
        checkpoints=Checkpoints(cfg.OUTPUT_DIR, keep=cfg.CHECKPOINTS_KEPT),
    )


def _restore(run: _Run, *, resume: bool, eval_only: bool, or_start: bool) -> int:
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
        write_atomically(folder / "config.yaml", lambda file: file.write(cfg.dump().encode()))
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


def _train(run: _Run, start: int, stop: StopRequest) -> dict[str, float]:
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
    shown = writer.shown() if writer is not None else contextlib.nullcontext()
    with shown, contextlib.closing(batches):
        train(
            run.method,
            run.optimizer,
            batches,
            plan=plan,
            step_config=StepConfig(
                learning_rate=run.learning_rate,
                normalize=Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(device),
                precision=run.precision,
                scaler=run.scaler,
                accumulate=cfg.SOLVER.ACCUMULATE,
                seed=cfg.SEED,
            ),
            start_step=start,
            checkpoints=run.checkpoints if get_rank() == 0 else None,
            config=cfg.dump(),
            writer=writer,
            monitor=TrainingMonitor(num_workers=cfg.DATA.NUM_WORKERS, keys=KEYS),
            evaluate=evaluate,
            stop=stop,
        )
    if skipped := len(run.views.unreadable):
        logger.warning(
            "%d of %d images could not be read and were replaced", skipped, len(run.views)
        )
    return result


def _open_writer(run: _Run, start: int) -> MetricWriter:
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
