"""A whole fine-tuning, from the command's arguments to the results."""

from __future__ import annotations

import argparse
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch
from detectron2.utils.logger import setup_logger

from cwrgp.cli import load_config
from cwrgp.shared_memory import worker_errors_end_the_run
from d2_transfer.checkpoint import TransferCheckpointer, starting_point
from d2_transfer.config import choose_device, get_cfg, validate_cfg
from d2_transfer.data.registry import register_custom
from d2_transfer.trainer import Trainer
from d2_transfer.weights import check_weights_for


def setup(args: argparse.Namespace) -> CfgNode:
    """Merges, checks and freezes the config of a command; writes nothing."""
    cfg = get_cfg()
    # Detectron2 reads the file again for its log, and knows no names of packaged ones.
    args.config_file = str(load_config(cfg, args.config_file, args.opts))
    return prepare(cfg, args)


def prepare(cfg: CfgNode, args: argparse.Namespace) -> CfgNode:
    """Chooses the device, checks and freezes a config, in place, and returns it; writes nothing.

    Raises:
        FileNotFoundError: weights or data are missing.
        ValueError: what cannot work, in one line that names the key or the argument.
    """
    check_num_gpus(args.num_gpus)
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(f"--num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT")
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    choose_device(cfg)
    register_custom(cfg.DATASETS.CUSTOM)
    processes = max(args.num_gpus, 1) * args.num_machines
    validate_cfg(cfg, eval_only=args.eval_only, num_processes=processes)
    path, resumed = starting_point(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, args.resume)
    if args.eval_only and not path:
        raise ValueError("--eval-only needs weights to evaluate: MODEL.WEIGHTS FILE, or --resume")
    check_weights_for(cfg, path, complete=resumed or args.eval_only)
    cfg.freeze()
    return cfg


def check_num_gpus(num_gpus: int) -> None:
    """Raises ValueError unless there are as many GPUs; one process may also run on the CPU."""
    available = torch.cuda.device_count()
    if num_gpus < 0 or (num_gpus > 1 and num_gpus > available):
        raise ValueError(f"--num-gpus {num_gpus}: this machine has {available} GPUs")


def fine_tune(cfg: CfgNode, args: argparse.Namespace) -> Any:
    """Runs in this process, or starts one for each GPU.

    Returns:
        The results of the last evaluation, also if other processes made it.
    """
    if args.num_gpus * args.num_machines <= 1:
        return run(cfg, args)
    with tempfile.TemporaryDirectory() as aside:
        results = Path(aside, "results.pkl")
        launch(
            _run_and_save,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(results, cfg, args),
        )
        return pickle.loads(results.read_bytes()) if results.is_file() else None


@worker_errors_end_the_run("DATALOADER.NUM_WORKERS")
def run(cfg: CfgNode, args: argparse.Namespace) -> Any:
    """What each process does: evaluates, or trains and evaluates. Returns the results."""
    register_custom(cfg.DATASETS.CUSTOM)  # a spawned process starts with an empty catalog
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, name="d2_transfer")
    if args.eval_only:
        model = Trainer.build_model(cfg)
        path, _ = starting_point(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, args.resume)
        TransferCheckpointer(model).load(path)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def _run_and_save(file: Path, cfg: CfgNode, args: argparse.Namespace) -> None:
    """`run` in a process of its own. Only the main process of the run has results."""
    if results := run(cfg, args):
        file.write_bytes(pickle.dumps(results))
