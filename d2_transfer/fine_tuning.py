"""A whole fine-tuning: from a config to the results, in one process or several."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from cwrgp.checkpoints.last_checkpoint import read_last_checkpoint
from cwrgp.errors import NothingToResume
from cwrgp.launch import check_num_gpus, launch
from cwrgp.preemption import StopRequest, stop_request
from cwrgp.profiling import check_steps_left
from cwrgp.shared_memory import worker_errors_end_the_run
from d2_transfer.checkpoint import TransferCheckpointer, starting_point
from d2_transfer.config import choose_device, validate_cfg
from d2_transfer.data.registry import (
    Reading,
    forget_data,
    register_custom,
    register_named,
    use_reading,
    write_subsets,
)
from d2_transfer.data.settle import log_datasets, run_datasets, settle_datasets
from d2_transfer.number_format import keep_number_format, resolve_number_format
from d2_transfer.profiling import ProfileSteps
from d2_transfer.stopping import StopWhenAsked
from d2_transfer.trainer import Trainer
from d2_transfer.weights import check_weights_for, read_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How a fine-tuning is run, beside its config.

    Attributes:
        config_file: for the log; "" if there is none.
        resume: go on from the last checkpoint of OUTPUT_DIR.
        or_start: with ``resume``, start where there is none.
        eval_only: evaluate MODEL.WEIGHTS, or with ``resume`` the last checkpoint; do not train.
        profile: write a trace of a few steps and a table of their parts to OUTPUT_DIR.
        stoppable: catch SIGTERM and SIGUSR1: save after the step, and raise `Preempted`.
        num_gpus: processes on this machine, one for each GPU; 1 without a GPU, or 0: the CPU.
            torchrun sets the number itself.
        num_machines: of the run.
        machine_rank: number of this machine.
        dist_url: where several machines meet, ``tcp://HOST:PORT``.
    """

    config_file: str = ""
    resume: bool = False
    or_start: bool = False
    eval_only: bool = False
    profile: bool = False
    stoppable: bool = False
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    def num_processes(self) -> int:
        """Of the whole run; torchrun has started them already."""
        if "LOCAL_RANK" in os.environ:
            return int(os.environ["WORLD_SIZE"])
        return max(self.num_gpus, 1) * self.num_machines


def prepare(cfg: CfgNode, options: RunOptions) -> CfgNode:
    """Chooses the device, checks and freezes a config, in place, and returns it; writes nothing.

    Raises:
        FileNotFoundError: weights or data are missing, or there is nothing to resume.
        ValueError: what cannot work, in one line that names the key or the argument.
    """
    check_num_gpus(options.num_gpus)
    if options.profile and options.eval_only:
        raise ValueError("profile=True profiles training steps; omit it, or eval_only=True")
    if options.num_machines > 1 and options.dist_url == "auto":
        raise ValueError(f"num_machines {options.num_machines} needs dist_url='tcp://HOST:PORT'")
    if options.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    choose_device(cfg)
    _register(cfg, options)
    path, resumed = starting_point(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, options.resume)
    if resumed:
        keep_number_format(cfg, read_weights(path).get("trainer", {}))
    validate_cfg(cfg, eval_only=options.eval_only, num_processes=options.num_processes())
    if options.resume and not (resumed or options.or_start):
        raise NothingToResume(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds no checkpoint to go on from; omit resume=True to"
            " start"
        )
    if options.eval_only and not path:
        raise ValueError(
            "eval_only=True needs weights to evaluate: MODEL.WEIGHTS FILE, or resume=True"
        )
    if not (options.resume or options.eval_only) and read_last_checkpoint(Path(cfg.OUTPUT_DIR)):
        raise ValueError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds a run already; add resume=True, or choose"
            " another folder"
        )
    settle_datasets(cfg, eval_only=options.eval_only, weights=path)
    check_weights_for(cfg, path, complete=resumed or options.eval_only)
    cfg.freeze()
    return cfg


def _register(cfg: CfgNode, options: RunOptions) -> None:
    register_custom(cfg.DATASETS.CUSTOM)
    if not options.eval_only:
        for split in ("TRAIN", "VAL"):
            register_named(f"DATASETS.{split}", cfg.DATASETS[split], cfg.DATASETS.SUBSET_SEED)
    register_named("DATASETS.TEST", cfg.DATASETS.TEST, cfg.DATASETS.SUBSET_SEED)


def fine_tune(cfg: CfgNode, options: RunOptions) -> Any:
    """Evaluates, or trains and evaluates: in this process, in those of torchrun, or in new ones.

    Args:
        cfg: merged; checked and frozen here.
        options: how it is run.

    Returns:
        The results of the last evaluation, also if other processes made it; None without one, and
        on all but the main process of torchrun.

    Raises:
        FileNotFoundError: weights or data are missing, or there is nothing to resume.
        ValueError: what cannot work, in one line that names the key or the argument.
        FloatingPointError: a loss is not finite.
        OSError: a file cannot be read or written, or a data loader worker died.
        Preempted: a signal stopped the run, which has saved a checkpoint.
    """
    prepare(cfg, options)
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside, "results.pkl")
        launch(
            _run_in_group,
            max(options.num_gpus, 1),
            (cfg, options, file),
            num_machines=options.num_machines,
            machine_rank=options.machine_rank,
            init_method=None if options.dist_url == "auto" else options.dist_url,
        )
        return pickle.loads(file.read_bytes()) if file.is_file() else None


def _run_in_group(cfg: CfgNode, options: RunOptions, results_file: Path) -> None:
    """`run` in one of several processes, or alone. Only the main process of the run has results."""
    if dist.is_initialized():
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    with stop_request() if options.stoppable else contextlib.nullcontext() as request:
        results = run(cfg, options, request)
    if results and comm.is_main_process():
        results_file.write_bytes(pickle.dumps(results))


@worker_errors_end_the_run("DATALOADER.NUM_WORKERS")
def run(cfg: CfgNode, options: RunOptions, request: StopRequest | None = None) -> Any:
    """What each process does: evaluates, or trains and evaluates. Returns the results.

    Args:
        cfg: checked and frozen.
        options: how it is run.
        request: stops a training; None: nothing does.
    """
    _register(cfg, options)  # a spawned process starts with an empty catalog
    use_reading(run_datasets(cfg, eval_only=options.eval_only), Reading.of(cfg))
    times = ""
    if not options.eval_only:
        # Before the setup, which saves the config and seeds.
        cfg, times = resolve_number_format(cfg)
    default_setup(cfg, options)
    setup_logger(cfg.OUTPUT_DIR, name="d2_transfer")
    if times:
        amp = cfg.SOLVER.AMP
        logger.info(f"Number format: {amp.DTYPE}, {amp.MEMORY_FORMAT} ({times})")
    if comm.is_main_process():
        log_datasets(cfg, eval_only=options.eval_only)
    if options.eval_only:
        model = Trainer.build_model(cfg)
        path, _ = starting_point(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, options.resume)
        TransferCheckpointer(model).load(path)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    if comm.is_main_process():
        for file in write_subsets(cfg.DATASETS.TRAIN, Path(cfg.OUTPUT_DIR, "subsets")):
            logger.info(f"The images of the subset are listed in {file}")
    # The loaders have their own copy of the training data.
    forget_data(set(cfg.DATASETS.TRAIN) - {*cfg.DATASETS.VAL, *cfg.DATASETS.TEST})
    trainer.resume_or_load(resume=options.resume)
    if options.profile:
        check_steps_left(trainer.max_iter - trainer.start_iter)
        folder, device = Path(cfg.OUTPUT_DIR), torch.device(cfg.MODEL.DEVICE)
        trainer.register_hooks([ProfileSteps(folder, device)])
    if request is not None:
        trainer.register_hooks([StopWhenAsked(request)])
    return trainer.train()
