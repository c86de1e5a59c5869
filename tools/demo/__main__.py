"""The whole pipeline on synthetic images: draw, pretrain, convert, fine-tune twice, compare.

python tools/demo                        # resumes where it stopped; writes output/demo/report.html
python tools/demo --again pretrain       # repeat a stage and all that follow
python tools/demo --seeds 0 1 2          # more fine-tuning runs of each kind
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import stages
from cwrgp.cli import make_parser, run_main

NAMES = ("scenes", "pretrain", "convert", "finetune", "report")


def parse_args() -> argparse.Namespace:
    parser = make_parser("python tools/demo", __doc__)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of fine-tuning")
    parser.add_argument("--again", choices=NAMES, help="repeat this stage and all that follow")
    parser.add_argument("--only", choices=NAMES, help="stop after this stage")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    root = args.output.absolute()
    recipe = root / "recipe.txt"
    if root.exists() and (not recipe.exists() or recipe.read_text() != stages.recipe()):
        args.again = NAMES[0]  # the folder holds results of another version of the demo
    if args.again:
        forget(root, args.again)
    root.mkdir(parents=True, exist_ok=True)
    recipe.write_text(stages.recipe())
    cores = os.cpu_count() or 1
    for name in NAMES:
        planned = (stage for stage in stages.plan(root, args.seeds) if stage.kind == name)
        todo = [stage for stage in planned if not stage.done.exists()]
        # Two small networks on a core each are faster than one after the other on both.
        parallel = max(1, min(len(todo), cores))
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda stage, n=cores // parallel: stages.run(stage, root, n), todo))
        if name == args.only:
            return
    from collect import collect  # noqa: PLC0415 (imports Detectron2, some seconds)
    from cwrgp.report.page import write_page  # noqa: PLC0415
    from report import render  # noqa: PLC0415

    page = root / "report.html"
    write_page(page, render(collect(root, args.seeds)))
    print(f"\nThe report: {page}")


def forget(root: Path, first: str) -> None:
    """Removes what the stages from ``first`` on left, of all seeds there are."""
    seeds = {int(folder.name.rsplit("_", 1)[1]) for folder in root.glob("finetune_*")}
    for stage in stages.plan(root, sorted(seeds)):
        if NAMES.index(stage.kind) >= NAMES.index(first):
            stages.forget(stage, root)


if __name__ == "__main__":
    sys.exit(run_main(main, parse_args()))
