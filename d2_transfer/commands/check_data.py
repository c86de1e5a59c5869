"""``cwrgp-check-data``: what is in a data set and what is wrong with it; torch is not loaded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cwrgp.cli import make_parser, run_main
from d2_transfer.checking.box_sizes import ANCHOR_SIZES, LONG_SIDE, SHORT_SIDE
from d2_transfer.checking.check import SAMPLES, as_text, check_data, write_report
from d2_transfer.checking.clean_coco import ignored_orientations, write_coco
from d2_transfer.data.load import MASKLESS, MAX_UNREADABLE_SHARE

_DESCRIPTION = """\
Reads annotated images as training does, and shows what is mended, skipped or refused, the classes,
the sizes of objects against the anchors, images that occur twice, and drawn samples.

  %(prog)s coco:train.json:images/ --masks --output check/
  %(prog)s voc:ROOT:train --against voc:ROOT:val --pretraining photos/
  %(prog)s yolo:data.yaml:train --write train.json

The exit code is 2 where training would refuse the data."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-check-data", _DESCRIPTION)
    parser.add_argument(
        "data",
        metavar="DATA",
        help="coco:ANN.json[:IMAGES], voc:ROOT:SPLIT, yolo:DATA.yaml:SPLIT or a name",
    )
    parser.add_argument("--masks", action="store_true", help="check masks as well")
    parser.add_argument("--against", metavar="DATA", help="data that must not share images with it")
    parser.add_argument(
        "--pretraining", metavar="FOLDER", help="images without annotations, likewise"
    )
    parser.add_argument(
        "--anchors",
        type=float,
        nargs="+",
        default=list(ANCHOR_SIZES),
        metavar="SIZE",
        help="of the detector, px (default: Detectron2's 32 to 512)",
    )
    for name, default in (("short", SHORT_SIDE), ("long", LONG_SIDE)):
        parser.add_argument(
            f"--{name}-side",
            type=float,
            default=default,
            metavar="PX",
            help=f"{name} side of the resized images (default: {default})",
        )
    parser.add_argument("--output", metavar="FOLDER", help="write samples.png and report.html")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, metavar="N", help=f"drawn images ({SAMPLES})"
    )
    parser.add_argument("--write", metavar="OUT.json", help="write the mended data as COCO JSON")
    parser.add_argument("--maskless", choices=MASKLESS, default=MASKLESS[0])
    parser.add_argument(
        "--max-unreadable-share", type=float, default=MAX_UNREADABLE_SHARE, metavar="SHARE"
    )
    parser.add_argument(
        "--pixel-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="black and white"
    )
    parser.add_argument("--strict", action="store_true", help="refuse what would be mended")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-check-data``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    check = check_data(
        args.data,
        masks=args.masks,
        against=args.against,
        pretraining=args.pretraining,
        anchors=args.anchors,
        short_side=args.short_side,
        long_side=args.long_side,
        maskless=args.maskless,
        max_unreadable_share=args.max_unreadable_share,
        pixel_range=args.pixel_range,
        strict=args.strict,
    )
    print(as_text(check))
    if args.output is not None:
        folder = Path(args.output).expanduser()
        write_report(check, folder, samples=args.samples, pixel_range=args.pixel_range)
        print(f"\nWritten: {folder / 'samples.png'} and {folder / 'report.html'}")
    if args.write is not None:
        path = Path(args.write).expanduser()
        root = write_coco(check.loaded, path)
        print(f"\nWritten: coco:{path}:{root}")
        if not args.masks:
            print("without masks, which are written with --masks")
        if ignored := ignored_orientations(check.loaded):
            print(
                f"info lists the {len(ignored)} images whose EXIF orientation is not to be applied"
            )


if __name__ == "__main__":
    sys.exit(main())
