"""Fine-tunes and evaluates a detector.

    python d2_transfer/train_net.py --config-file configs/detection/pascal_voc_R_50_C4_24k.yaml \\
        --num-gpus 8 MODEL.WEIGHTS output/encoder.pkl
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import d2_transfer  # noqa: F401  (first: it says how to get Detectron2, and keeps it quiet)

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils.logger import setup_logger

from cwrgp.cli import load_config, run_main
from cwrgp.shared_memory import worker_errors_end_the_run
from d2_transfer.checkpoint import TransferCheckpointer, starting_point
from d2_transfer.config import choose_device, get_cfg, validate_cfg
from d2_transfer.data.registry import register_custom
from d2_transfer.trainer import Trainer
from d2_transfer.weights import check_weights_for


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Detectron2's usual arguments, and ``--debug``."""
    parser = default_argument_parser()
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def setup(args: argparse.Namespace) -> CfgNode:
    """Merges, checks and freezes the config; writes nothing."""
    check_num_gpus(args.num_gpus)
    cfg = get_cfg()
    load_config(cfg, args.config_file, args.opts)
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


def main(args: argparse.Namespace) -> Any:
    """Checks everything once, then starts a process per GPU, or runs in this one."""
    cfg = setup(args)
    if args.num_gpus * args.num_machines <= 1:
        return run(cfg, args)
    return launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(cfg, args),
    )


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
