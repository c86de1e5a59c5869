"""Conversion for Detectron2: `convert` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from cwrgp.checkpoints.formats import BRANCHES, describe_sources, source_names
from cwrgp.cli import add_checkpoint_arguments, make_parser, run_main
from cwrgp.file_io.atomic import write_text
from d2_transfer.requirement import require_detectron2

if TYPE_CHECKING:
    from d2_transfer.conversion import Conversion

_DESCRIPTION = """\
Converts a checkpoint's ResNet encoder for Detectron2, and proves that it is the same network.

  %(prog)s output/pretrain/model_final.pth output/encoder.pkl
  %(prog)s --list

OUTPUT (.pkl, .pth or .safetensors) is what MODEL.WEIGHTS of cwrgp-train-net takes.
--to torchvision exports the backbone of a Detectron2 file, also of a fine-tuned detector."""


def convert(
    input_file: str | PathLike[str],
    output_file: str | PathLike[str],
    *,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    to: str = "detectron2",
    stride_in_1x1: bool | None = None,
    check: bool = True,
    unsafe: bool = False,
) -> Conversion:
    """Converts a checkpoint's encoder for Detectron2, with proof: ``cwrgp-convert`` as a function.

    Example::

        d2_transfer.convert("output/pretrain/model_final.pth", "output/encoder.pkl")

    Args:
        input_file: a file, a URL, ``cwrgp://NAME`` or ``hf://OWNER/NAME[/FILE]``: any file with one
            ResNet, or of a format that ``cwrgp-convert --list`` shows.
        output_file: ``.pkl``, ``.pth`` or ``.safetensors``.
        source: format of the input; "auto" detects it.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        prefix: what the network's names begin with, where the file has several networks and no
            known format.
        to: "detectron2", or "torchvision" to export a Detectron2 backbone.
        stride_in_1x1: for that export: MODEL.RESNETS.STRIDE_IN_1X1 of the detector; None takes it
            from the ``config.yaml`` beside the file.
        check: False omits the proof.
        unsafe: lets the input run code: only for files that you made.

    Returns:
        What was written, what was found in the input, and the proof.

    Raises:
        MissingPackage: Detectron2 is not installed.
        FileNotFoundError: no such input.
        ValueError: the input is refused, the output's name is wrong, or the proof failed.
    """
    if check:
        require_detectron2()
    from d2_transfer.conversion import convert_file  # noqa: PLC0415 (imports torch)

    return convert_file(
        str(input_file),
        str(output_file),
        source,
        branch=branch,
        prefix=prefix,
        to=to,
        stride_in_1x1=stride_in_1x1,
        check=check,
        unsafe=unsafe,
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-convert", _DESCRIPTION)
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="?",
        help="checkpoint: a file, a URL, cwrgp://NAME, or hf://OWNER/NAME[/FILE]",
    )
    parser.add_argument("output", metavar="OUTPUT", nargs="?", help="NAME.pkl|.pth|.safetensors")
    add_checkpoint_arguments(parser, source_names(), BRANCHES)
    parser.add_argument(
        "--to", choices=("detectron2", "torchvision"), default="detectron2", help="names in OUTPUT"
    )
    parser.add_argument(
        "--stride-in-1x1",
        choices=("True", "False"),
        help="for --to torchvision: MODEL.RESNETS.STRIDE_IN_1X1 of the detector (default: that of"
        " config.yaml beside INPUT)",
    )
    parser.add_argument("--no-verify", action="store_true", help="omit the proof")
    parser.add_argument("--report", metavar="FILE", help="write what was done as JSON")
    parser.add_argument("--list", action="store_true", help="show the known formats")
    args = parser.parse_args(argv)
    if not args.list and args.output is None:
        parser.error("INPUT and OUTPUT are needed (or --list)")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-convert``; returns the exit code."""
    return run_main(_convert, parse_args(argv))


def _convert(args: argparse.Namespace) -> None:
    if args.list:
        print(describe_sources())
        return
    if args.report:
        _check_report(Path(args.report), args.input, args.output)
    conversion = convert(
        args.input,
        args.output,
        source=args.source,
        branch=args.branch,
        prefix=args.prefix,
        to=args.to,
        stride_in_1x1=None if args.stride_in_1x1 is None else args.stride_in_1x1 == "True",
        check=not args.no_verify,
        unsafe=args.unsafe,
    )
    from d2_transfer.conversion_report import as_json, as_table  # noqa: PLC0415

    print(as_table(conversion))
    if args.report:
        content = as_json(conversion, args.input)
        write_text(Path(args.report), json.dumps(content, indent=2) + "\n")


def _check_report(report: Path, *others: str) -> None:
    """Before the conversion, which may take long, and so that no weights are overwritten."""
    if not report.parent.is_dir() or report.is_dir():
        raise ValueError(f"--report {report}: name a file in a folder that exists")
    if report.resolve() in [Path(other).resolve() for other in others]:
        raise ValueError(f"--report {report} is INPUT or OUTPUT: choose another name")
