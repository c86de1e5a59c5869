"""``cwrgp-score``: AP of a file of detections; no model, no image, no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from cwrgp.cli import make_parser, run_main
from d2_transfer.scoring.coco import BACKENDS
from d2_transfer.scoring.score import score

_DESCRIPTION = """\
Scores detections of any framework: COCO's AP, and VOC's for data in VOC form.

  %(prog)s coco:annotations/instances_val2017.json results.json --masks
  %(prog)s voc:VOC2007:test results.json --json

RESULTS is in COCO's results format. For VOC data, image_id is the name in the list and category_id
counts from 1 in the order of --classes, or of the sorted names of the classes that occur."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-score", _DESCRIPTION)
    parser.add_argument("data", metavar="DATA", help="coco:ANN.json or voc:ROOT:SPLIT")
    parser.add_argument("results", metavar="RESULTS.json", help="detections")
    parser.add_argument("--masks", action="store_true", help="score masks as well")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of VOC data, in order")
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="of COCO's AP")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-score``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    found = score(
        args.data,
        args.results,
        ("bbox", "segm") if args.masks else ("bbox",),
        classes=args.classes,
        backend=args.backend,
    )
    print(json.dumps(found, indent=2) if args.json else as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """Tables of what `score` returns: the metrics, and AP of each class."""
    kinds = [kind for kind in found if kind != "protocol"]
    metrics = [name for name in found[kinds[0]] if name != "per_class"]
    rows = [[_label(kind, found), *(_shown(found[kind][m]) for m in metrics)] for kind in kinds]
    classes = [
        [name, *(_shown(found[kind]["per_class"][name]) for kind in kinds)]
        for name in found[kinds[0]]["per_class"]
    ]
    names = [_label(kind, found) for kind in kinds]
    options: dict[str, Any] = {"tablefmt": "github", "disable_numparse": True}
    return "\n\n".join(
        [
            tabulate(rows, headers=["in %", *metrics], **options),
            tabulate(classes, headers=["class", *names], **options),
        ]
    )


def _label(kind: str, found: dict[str, Any]) -> str:
    return f"{kind} ({found['protocol']})" if kind in ("bbox", "segm") else kind


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
