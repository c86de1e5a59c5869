"""``cwrgp-score``: AP of a file of detections, or of two; no model, no image, no torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from cwrgp.cli import make_parser, run_main
from d2_transfer.scoring.coco import BACKENDS
from d2_transfer.scoring.compare import RESAMPLES, compare
from d2_transfer.scoring.score import score
from d2_transfer.scoring.tables import as_text, comparison_as_text

_DESCRIPTION = """\
Scores detections of any framework: COCO's AP, and VOC's for data in VOC form.

  %(prog)s coco:annotations/instances_val2017.json results.json --masks
  %(prog)s voc:VOC2007:test results.json --json
  %(prog)s voc_2007_test results.json          # in the folder DETECTRON2_DATASETS
  %(prog)s voc_2007_test first.json second.json    # is the difference more than chance?

RESULTS is in COCO's results format. For VOC data, image_id is the name in the list and category_id
counts from 1 in the order of --classes, of VOC's twenty if all names are among them, or of the
sorted names of the classes that occur. For YOLO data, image_id is the file name without suffix."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-score", _DESCRIPTION)
    parser.add_argument(
        "data",
        metavar="DATA",
        help="coco:ANN.json[:IMAGES], voc:ROOT:SPLIT, yolo:DATA.yaml:SPLIT or a name",
    )
    parser.add_argument("results", metavar="RESULTS.json", help="detections")
    parser.add_argument(
        "second", metavar="SECOND.json", nargs="?", help="others on the same images, to compare"
    )
    parser.add_argument("--masks", action="store_true", help="score masks as well")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="of VOC data, in order")
    parser.add_argument("--backend", choices=BACKENDS, help=f"of COCO's AP ({BACKENDS[0]})")
    parser.add_argument("--areas", action="store_true", help="compare APs, APm and APl as well")
    parser.add_argument(
        "--resamples", type=int, metavar="N", help=f"of the images, to compare ({RESAMPLES})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-score``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    kinds = ("bbox", "segm") if args.masks else ("bbox",)
    if args.second is None:
        if args.areas or args.resamples is not None:
            raise ValueError("--areas and --resamples compare two files; give a SECOND.json")
        backend = args.backend or BACKENDS[0]
        found = score(args.data, args.results, kinds, classes=args.classes, backend=backend)
        text = as_text(found)
    else:
        if args.backend not in (None, "hotcoco"):
            raise ValueError(f"--backend {args.backend} does not compare two files; omit it")
        found = compare(
            args.data,
            args.results,
            args.second,
            kinds,
            classes=args.classes,
            areas=args.areas,
            resamples=RESAMPLES if args.resamples is None else args.resamples,
        )
        text = comparison_as_text(found)
    print(json.dumps(found, indent=2) if args.json else text)


if __name__ == "__main__":
    sys.exit(main())
