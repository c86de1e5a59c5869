"""Converts a checkpoint's ResNet encoder for Detectron2, and proves that it is the same network.

    python tools/convert_to_d2.py output/pretrain/model_final.pth output/encoder.pkl
    python tools/convert_to_d2.py --list

OUTPUT (.pkl, .pth or .safetensors) is what `MODEL.WEIGHTS` of d2_transfer/train_net.py takes.
With `--to torchvision` the way back: from Detectron2's file, a fine-tuned detector too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cwrgp.checkpoints.formats import BRANCHES, describe_sources, source_names
from cwrgp.cli import run_main
from d2_transfer.conversion import convert_file
from d2_transfer.conversion_report import as_json, as_table


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "input", metavar="INPUT", nargs="?", help="checkpoint: a file, a URL, or cwrgp://NAME"
    )
    parser.add_argument("output", metavar="OUTPUT", nargs="?", help="NAME.pkl|.pth|.safetensors")
    parser.add_argument(
        "--source", default="auto", metavar="NAME", help="format of INPUT (default: told by itself)"
    )
    parser.add_argument(
        "--branch", choices=BRANCHES, help="which network, where INPUT has a moving average too"
    )
    parser.add_argument(
        "--to", choices=("detectron2", "torchvision"), default="detectron2", help="names in OUTPUT"
    )
    parser.add_argument("--no-verify", action="store_true", help="leave out the proof")
    parser.add_argument(
        "--unsafe-load", action="store_true", help="let INPUT run code: only files you made"
    )
    parser.add_argument("--report", metavar="FILE", help="write what was done as JSON")
    parser.add_argument("--list", action="store_true", help="show the known formats")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(argv)
    if not args.list and args.output is None:
        parser.error("INPUT and OUTPUT are needed (or --list)")
    if args.source not in source_names():
        parser.error(f"--source {args.source}: choose one of {', '.join(source_names())}")
    return args


def main(args: argparse.Namespace) -> None:
    """Converts and prints what was done."""
    if args.list:
        print(describe_sources())
        return
    if args.report:
        _check_report(Path(args.report), args.input, args.output)
    conversion = convert_file(
        args.input,
        args.output,
        args.source,
        branch=args.branch,
        to=args.to,
        check=not args.no_verify,
        unsafe=args.unsafe_load,
    )
    print(as_table(conversion, args.output))
    if args.report:
        content = as_json(conversion, args.input, args.output)
        Path(args.report).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_report(report: Path, *others: str) -> None:
    """Before the conversion, which may take long, and so that no weights are overwritten."""
    if not report.parent.is_dir() or report.is_dir():
        raise ValueError(f"--report {report}: name a file in a folder that exists")
    if report.resolve() in [Path(other).resolve() for other in others]:
        raise ValueError(f"--report {report} is INPUT or OUTPUT: choose another name")


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
