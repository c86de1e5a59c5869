"""The number format that is fastest on this CPU: measured once for each network, then cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cwrgp.comm import from_main
from cwrgp.file_io.atomic import write_text
from cwrgp.file_io.cache import cache_dir

logger = logging.getLogger("cwrgp")

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class NumberFormat(NamedTuple):
    """In what a network computes.

    Attributes:
        dtype: "fp32", or "bf16" for bf16 autocast.
        memory_format: of images and weights, a key of `MEMORY_FORMATS`.
    """

    dtype: str
    memory_format: str


PLAIN = NumberFormat("fp32", "contiguous")
CANDIDATES = (
    PLAIN,
    NumberFormat("fp32", "channels_last"),
    NumberFormat("bf16", "channels_last"),
)

# A step of a network in a format, forward and backward, over a number of images.
Step = Callable[[int], object]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bf16 matrices.

    On a CPU they may still be slower than fp32; `choose_format` measures.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # bf16 also works without these instructions, but slower than fp32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def fastest(seconds: Mapping[NumberFormat, float], margin: float = 0.05) -> NumberFormat:
    """The fastest format; the plainer one where the difference is small.

    Args:
        seconds: of a step in each format, `PLAIN` among them.
        margin: the share of the time that channels_last must save over contiguous memory, and
            then bf16 over fp32.
    """
    best = PLAIN
    for candidate in CANDIDATES:
        if candidate in seconds and seconds[candidate] < (1 - margin) * seconds[best]:
            best = candidate
    return best


def time_steps(
    make_step: Callable[[NumberFormat], Step],
    max_images: int,
    *,
    seconds_per_step: float = 0.25,
    rounds: int = 3,
) -> dict[NumberFormat, float]:
    """Times a step in each format that the CPU has instructions for.

    The formats are timed in turn, and the least time of each counts, so that other processes on
    the machine disturb the comparison little.

    Args:
        make_step: the step in a format. It is called with a number of images, at least two.
        max_images: of a step of the run.
        seconds_per_step: large steps are cut to as many images as take about this long in fp32.
        rounds: timed steps of each format, after one that warms up.

    Returns:
        Seconds of a step in each format.
    """
    cpu = torch.device("cpu")
    formats = [f for f in CANDIDATES if f.dtype == "fp32" or has_fast_bf16(cpu)]
    steps = {f: make_step(f) for f in formats}
    few = min(2, max_images)
    steps[PLAIN](few)  # compiles kernels
    two_images = _seconds(steps[PLAIN], few)
    images = max(few, min(max_images, int(few * seconds_per_step / two_images)))
    for step in steps.values():
        step(images)
    times = [{f: _seconds(step, images) for f, step in steps.items()} for _ in range(rounds)]
    return {f: min(turn[f] for turn in times) for f in formats}


def choose_format(
    key: Mapping[str, Any], measure: Callable[[], Mapping[NumberFormat, float]]
) -> tuple[NumberFormat, str]:
    """The fastest format, from the cache or measured: the same on all processes.

    The main process decides and the others wait for it. A cache that cannot be read or written is
    reported in the log and costs a measurement; it is never an error.

    Args:
        key: what the times depend on besides machine, PyTorch and threads: plain values.
        measure: gives the seconds of a step in each format; see `time_steps`.

    Returns:
        The format, and the times that speak for it, for the log.
    """
    return from_main(lambda: _choose(key, measure))


def describe_machine() -> dict[str, Any]:
    """The processor, its instructions, PyTorch, and the threads of this process."""
    return {
        "processor": _processor(),
        "capabilities": {k: str(v) for k, v in sorted(torch.cpu.get_capabilities().items())},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _choose(
    key: Mapping[str, Any], measure: Callable[[], Mapping[NumberFormat, float]]
) -> tuple[NumberFormat, str]:
    key = {**describe_machine(), **key}
    text = json.dumps(key, sort_keys=True)
    file = cache_dir() / "number_formats" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    seconds = _read(file)
    if seconds is None:
        seconds = dict(measure())
        _write(file, key, seconds)
    times = ", ".join(f"{d} {m} {s * 1e3:.0f} ms" for (d, m), s in seconds.items())
    return fastest(seconds), f"measured: {times}"


def _read(file: Path) -> dict[NumberFormat, float] | None:
    try:
        seconds = json.loads(file.read_text())["seconds"]
        found = {f: float(seconds["/".join(f)]) for f in CANDIDATES if "/".join(f) in seconds}
        if PLAIN not in found or not all(value > 0 for value in found.values()):
            raise ValueError("it has no times")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is unusable (%s): the number format is measured again", file, error)
        return None
    return found


def _write(file: Path, key: Mapping[str, Any], seconds: Mapping[NumberFormat, float]) -> None:
    content = {"seconds": {"/".join(f): s for f, s in seconds.items()}, "of": key}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        logger.warning("the measured number format is not cached: %s", error)


def _seconds(step: Step, images: int) -> float:
    start = time.perf_counter()
    step(images)
    return time.perf_counter() - start


def _processor() -> str:
    """What Linux says of the first processor: virtual machines share a model name."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0] if info.exists() else ""
    fields = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
    pairs = (line.partition(":") for line in first.splitlines())
    return ", ".join(f"{k.strip()} {v.strip()}" for k, _, v in pairs if k.strip() in fields)
