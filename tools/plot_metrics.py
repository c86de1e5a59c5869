"""Draws curves of one run or several from their metrics.json, a panel for each key.

python tools/plot_metrics.py output/zca output/pca --keys total_loss knn/top1 --output curves.png

Reads the runs of tools/pretrain.py and of d2_transfer/train_net.py. A label other than the folder's
name is given as LABEL=FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cwrgp.cli import run_main
from cwrgp.report.figures import Series, curves
from cwrgp.trackers.jsonl import read_metrics


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]FOLDER", help="folders of runs")
    parser.add_argument("--keys", nargs="+", required=True, help="what to draw, a panel each")
    parser.add_argument("--output", required=True, metavar="FILE", help=".png, .svg or .pdf")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args()


def read_run(run: str, keys: list[str]) -> tuple[str, list[dict[str, float]]]:
    """A run's label and records.

    Raises:
        FileNotFoundError: no metrics.json.
        ValueError: a key of which it has no value, with those that it has.
    """
    label, _, folder = run.rpartition("=")
    path = Path(folder).expanduser() / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; name the OUTPUT_DIR of a run")
    records = read_metrics(path)
    known = sorted({key for record in records for key in record})
    for key in keys:
        if key not in known:
            raise ValueError(f"{path} has no {key}; it has {', '.join(known) or 'nothing'}")
    return label or Path(folder).resolve().name, records


def main(args: argparse.Namespace) -> None:
    runs = [read_run(run, args.keys) for run in args.runs]
    panels = []
    for key in args.keys:
        series = []
        for style, (label, records) in enumerate(runs):
            kept = [r for r in records if key in r]
            x, y = [r["iteration"] for r in kept], [r[key] for r in kept]
            series.append(Series(label, x, y, style))
        panels.append((key, series))
    curves(panels, x_label="iteration").savefig(args.output, dpi=150)


if __name__ == "__main__":
    args = parse_args()
    sys.exit(run_main(main, args))
