"""Pretrains a ResNet without labels; see configs/pretrain/ for the recipes.

python tools/pretrain.py --config-file configs/pretrain/cifar10_cwrgp4_r18.yaml DATA.ROOT data
torchrun --nproc_per_node 4 tools/pretrain.py --config-file FILE

On SIGTERM or SIGUSR1 the run finishes its step, saves, and exits with code 75.
"""

from __future__ import annotations

import argparse
import sys

from cwrgp.cli import add_config_arguments, load_config, run_main
from cwrgp.commands.pretrain import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.launch import launch
from cwrgp.preemption import EXIT_CODE, Preempted, stop_request


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-gpus", type=int, help="processes on this machine, one for each GPU")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--resume-or-start", action="store_true", help="the same, or start: for jobs that requeue"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate the last checkpoint")
    add_config_arguments(parser)
    return parser.parse_args()


def worker(args: argparse.Namespace) -> None:
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


def main(args: argparse.Namespace) -> int:
    try:
        launch(worker, args.num_gpus, (args,))
    except Preempted as told:
        print(f"{told}; --resume-or-start goes on", file=sys.stderr)
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
