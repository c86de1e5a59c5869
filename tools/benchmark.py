"""Measures speed as ratios: this project and a baseline in turn, A B A B ..., in one process.

python tools/benchmark.py                       # all rows, on the GPU where there is one
python tools/benchmark.py --rows views loss     # those whose names contain one of these
python tools/benchmark.py --json bench.json

Run it on an idle machine, and check the quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from tabulate import tabulate

from benchmark_rows import evaluation, fine_tuning, losses, steps, views
from benchmark_rows.timing import Row, measure
from cwrgp.cli import run_main

ROWS: list[Callable[[], list[Row]]] = [
    views.rows,
    losses.rows,
    steps.rows,
    fine_tuning.rows,
    evaluation.rows,
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=[""], metavar="PART", help="names, or parts")
    parser.add_argument(
        "--rounds",
        type=int,
        default=9,
        help="pairs that are measured, 2 or more; rows that take long have at most 3",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)  # row and side, for the memory
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    rows = [row for make in ROWS for row in make()]
    if args.once:
        name, side = args.once
        (row,) = (row for row in rows if row.name == name)
        row.prepare()[side == "b"]()
        return
    chosen = [row for row in rows if any(part in row.name for part in args.rows)]
    if not chosen:
        raise ValueError(f"--rows {' '.join(args.rows)}: no row of {[row.name for row in rows]}")
    if args.rounds < 2:
        raise ValueError(f"--rounds {args.rounds}: quartiles need 2 or more")
    if args.json:
        args.json.touch()  # fails now if it cannot be written
    print(describe_machine())
    # Before the timing: a new process starts with the peak of the one that starts it.
    measured = [] if args.no_memory else chosen
    memory = {row.name: [peak_memory(row.name, side) for side in "ab"] for row in measured}
    results: list[dict[str, Any]] = []
    for row in chosen:
        result = measure(row, args.rounds)
        if not args.no_memory:
            result["peak_mb"] = memory[row.name]
        results.append(result)
        print(f"{row.name}: {result['ratio']:.2f} x", flush=True)
    print(table(results))
    if args.json:
        args.json.write_text(
            json.dumps({"machine": describe_machine(), "rows": results}, indent=2) + "\n"
        )


def describe_machine() -> str:
    """Versions and hardware, in one line."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return (
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}, {device}"
    )


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


def peak_memory(name: str, side: str) -> float:
    """MB that a process needs which does one side of a row once."""
    command = [sys.executable, __file__, "--once", name, side]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def table(results: list[dict[str, Any]]) -> str:
    """One line for each row."""
    lines = []
    for r in results:
        low, high = r["ratio_spread"]
        memory = " / ".join(f"{mb:.0f}" for mb in r.get("peak_mb", []))
        speed = " / ".join(f"{value:,.1f}" for value in r["per_second"])
        ratio = [f"{r['ratio']:.2f}", f"{low:.2f}-{high:.2f}", r["target"] or ""]
        lines.append([r["name"], r["against"], speed, r["unit"], *ratio, memory])
    headers = ["row", "against", "per second", "of", "ratio", "quartiles", "target", "peak MB"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    sys.exit(run_main(main, parse_args()))
