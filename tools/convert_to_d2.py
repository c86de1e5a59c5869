"""Converts a checkpoint's ResNet encoder for Detectron2, and proves that it is the same network.

    python tools/convert_to_d2.py output/pretrain/model_final.pth output/encoder.pkl

OUTPUT (.pkl or .pth) is what `MODEL.WEIGHTS` of d2_transfer/train_net.py takes.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from cwrgp import cli
from cwrgp.pretrained.sources import source_names
from d2_transfer.convert import Conversion, convert_file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", help="checkpoint: a file or a URL")
    parser.add_argument("output", metavar="OUTPUT", help="file to write: NAME.pkl or NAME.pth")
    parser.add_argument(
        "--source", default="auto", choices=source_names(), help="format of INPUT (default: found)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Converts and prints what was done."""
    conversion = convert_file(args.input, args.output, args.source)
    print(report(conversion, args.output))


def report(conversion: Conversion, output: str) -> str:
    """A small table for the terminal."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for key, reason in conversion.dropped.items():
        reasons[reason].append(key)
    proof = conversion.verification
    rows = [
        ("source", conversion.encoder.source),
        ("architecture", conversion.encoder.arch),
        ("tensors used", f"{conversion.num_tensors_out}, each once"),
        *(
            (f"dropped {len(keys)}", f"{reason}: {_examples(keys)}")
            for reason, keys in reasons.items()
        ),
        *(("warning", warning) for warning in conversion.warnings),
        ("proof float64", f"largest difference of res2..res5: {proof.float64:.1e} (relative)"),
        ("proof float32", f"largest difference of res2..res5: {proof.float32:.1e} (relative)"),
        ("sha256 in", conversion.sha256_in),
        ("sha256 out", conversion.sha256_out),
        ("written", output),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _examples(keys: list[str], limit: int = 3) -> str:
    return ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "")


if __name__ == "__main__":
    args = parse_args()
    sys.exit(cli.run(main, args))
