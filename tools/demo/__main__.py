"""The whole pipeline on synthetic images: draw, pretrain, convert, and compare with random weights.

python tools/demo                   # goes on where it stopped; ends in trials/report.html
python tools/demo --again pretrain  # repeat a stage and all that follow
python tools/demo --trials 5        # more fine-tunings of each kind
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import stages
from cwrgp.cli import make_parser, run_main

NAMES = ("scenes", "pretrain", "convert", "trials")


def parse_args() -> argparse.Namespace:
    parser = make_parser("python tools/demo", __doc__)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument("--trials", type=int, default=2, help="fine-tunings of each kind")
    parser.add_argument("--again", choices=NAMES, help="repeat this stage and all that follow")
    parser.add_argument("--only", choices=NAMES, help="stop after this stage")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    root = args.output.absolute()
    recipe = root / "recipe.txt"
    if root.exists() and (not recipe.exists() or recipe.read_text() != stages.recipe()):
        args.again = NAMES[0]  # the folder holds results of another version of the demo
    cores = os.cpu_count() or 1
    planned = stages.plan(root, args.trials, cores)
    if args.again:
        for stage in planned[NAMES.index(args.again) :]:
            stages.forget(stage, root)
    root.mkdir(parents=True, exist_ok=True)
    recipe.write_text(stages.recipe())
    for stage in planned:
        # The trials know themselves what is done, and more of them may be asked for.
        if stage.kind == "trials" or not stage.done.exists():
            stages.run(stage, root)
        if stage.kind == args.only:
            return
    print(f"\nThe report: {planned[-1].done}")


if __name__ == "__main__":
    sys.exit(run_main(main, parse_args()))
