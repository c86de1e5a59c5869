"""Makes a checkpoint of tools/pretrain.py fit to hand on: NAME-<sha256>.pth and a model card.

    python tools/publish_checkpoint.py output/pretrain/model_final.pth published --name cwrgp_r50

The optimizer's state is left out; config, versions and metrics are put in. The same input gives the
same file.
"""

from __future__ import annotations

import argparse
import sys

from cwrgp.cli import run_main
from cwrgp.commands.publish import publish


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", help="model_final.pth of tools/pretrain.py")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder, made if missing")
    parser.add_argument("--name", required=True, help="beginning of the file's name")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="FILE_OR_KEY=VALUE",
        help="numbers for the card, or JSON files (default: k-NN of metrics.json beside INPUT)",
    )
    parser.add_argument("--encoder-only", action="store_true", help="leave out the heads")
    parser.add_argument(
        "--license", default="not stated", metavar="TEXT", help="of the weights, for the card"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Publishes and prints what was written."""
    done = publish(
        args.input,
        args.output_dir,
        args.name,
        metrics=args.metrics,
        encoder_only=args.encoder_only,
        licence=args.license,
    )
    print(f"written  {done.checkpoint}\ncard     {done.card}\nsha256   {done.sha256}")
    for name, value in done.metrics.items():
        print(f"metric   {name} {value:g}")


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
