"""Probes an encoder with labels, as papers do: nearest neighbours, linear, fine-tuning.

python tools/evaluate.py --config-file configs/pretrain/cifar10_cwrgp4_r18.yaml \\
    --weights output/cifar10_cwrgp4_r18/model_final.pth knn DATA.ROOT data
torchrun --nproc_per_node 4 tools/evaluate.py --config-file FILE --weights FILE linear

--weights takes this project's checkpoints and every format of tools/convert_to_d2.py --list.
What each probe is and what its numbers may be compared with: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import logging
import sys

from cwrgp.builders.probes import PROBES
from cwrgp.checkpoints.formats import BRANCHES, source_names
from cwrgp.cli import add_config_arguments, load_config, run_main
from cwrgp.comm import get_rank
from cwrgp.commands.evaluate import as_line, run_evaluation
from cwrgp.config import get_cfg
from cwrgp.launch import launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", required=True, help="a file, a URL, cwrgp://NAME, or random (a baseline)"
    )
    parser.add_argument(
        "--source", default="auto", metavar="NAME", help="format of it (default: told by itself)"
    )
    parser.add_argument("--branch", choices=BRANCHES, help="which network of it")
    parser.add_argument(
        "--unsafe-load", action="store_true", help="let it run code: only files you made"
    )
    parser.add_argument("--num-gpus", type=int, help="processes on this machine, one for each GPU")
    parser.add_argument("--output", metavar="FILE.json", help="write the result as JSON")
    parser.add_argument("probe", choices=PROBES)
    add_config_arguments(parser)
    args = parser.parse_args()
    if args.source not in source_names():
        parser.error(f"--source {args.source}: choose one of {', '.join(source_names())}")
    return args


def worker(args: argparse.Namespace) -> None:
    main = get_rank() == 0
    logger = logging.getLogger("cwrgp")  # to stderr: stdout has the result
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO if main else logging.ERROR)
    cfg = get_cfg()
    load_config(cfg, args.config_file, args.opts)
    record = run_evaluation(
        cfg,
        args.probe,
        args.weights,
        source=args.source,
        branch=args.branch,
        unsafe=args.unsafe_load,
        output=args.output,
    )
    if main:
        print(as_line(record))


def main(args: argparse.Namespace) -> None:
    launch(worker, args.num_gpus, (args,))


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
