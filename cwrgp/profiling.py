"""Where the time of a training step goes: a trace of a few steps, and a table of its parts."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from cwrgp.comm import get_rank
from cwrgp.file_io.atomic import replacing, write_text

# In the order of the table. The last one is for evaluations and checkpoints, which are due after
# some steps only.
PARTS = ("data", "forward", "loss", "backward", "optimizer", "logging", "evaluation, saving")

# The first steps are slower: memory is allocated, kernels are chosen, the loader fills up. The
# profiler itself needs a step or two.
IDLE_STEPS, WARMUP_STEPS, PROFILED_STEPS = 3, 2, 5
NEEDED_STEPS = IDLE_STEPS + WARMUP_STEPS + PROFILED_STEPS

_PREFIX = "step/"


def part(name: str) -> record_function:
    """Marks a block of the training step as one of `PARTS`, for the profiler.

    Without a profiler this costs some microseconds. A part inside another one, such as the loss in
    the forward pass, does not count for the outer one.
    """
    assert name in PARTS, name
    return record_function(_PREFIX + name)


@dataclass(frozen=True)
class StepTimes:
    """Mean times of the profiled steps.

    Attributes:
        steps: number of profiled steps.
        step: milliseconds of a step.
        parts: name -> milliseconds, those of `PARTS` that occur; with the rest of the step as
            "other" they add up to ``step``.
        kernels: name -> milliseconds of the GPU kernels that a part launched; {} without a GPU.
        communication: milliseconds in which data was exchanged between processes. It runs beside
            the parts, mostly beside the backward pass.
    """

    steps: int
    step: float
    parts: dict[str, float]
    kernels: dict[str, float]
    communication: float

    def as_table(self) -> str:
        """One row for each part, with its share of the step."""
        other = self.step - sum(self.parts.values())
        times = {**{name: self.parts.get(name, 0.0) for name in PARTS}, "other": other}
        rows = [
            [name, f"{ms:.2f}", f"{ms / self.step:.1%}", *self._kernels(name)]
            for name, ms in {**times, "step": self.step}.items()
        ]
        share = f"{self.communication / self.step:.1%}"
        rows.append(["communication", f"{self.communication:.2f}", share, *self._kernels("")])
        headers = ["part", "ms per step", "share", "ms of GPU kernels"][: len(rows[0])]
        align = ("left", "right", "right", "right")[: len(headers)]
        return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)

    def _kernels(self, name: str) -> list[str]:
        if not self.kernels:
            return []
        if name == "step":
            return [f"{sum(self.kernels.values()):.2f}"]
        return [f"{self.kernels.get(name, 0.0):.2f}" if name else ""]


def step_times(events: Sequence[FunctionEvent]) -> StepTimes:
    """Computes the times of the parts from the events of a trace.

    Args:
        events: of `torch.profiler.profile.events`, with one or more ``ProfilerStep`` ranges. The
            parts are those of the thread that runs the steps.
    """
    on_cpu = [e for e in events if e.device_type == DeviceType.CPU]
    steps = [_interval(e) for e in on_cpu if e.name.startswith("ProfilerStep")]
    assert steps, "the trace has no complete step"
    per_step = 1e-3 / len(steps)  # microseconds of all steps -> milliseconds of one
    marks = sorted(
        (*_interval(e), e.name.removeprefix(_PREFIX)) for e in on_cpu if e.name.startswith(_PREFIX)
    )
    parts: dict[str, float] = {}
    for begin, end, name in _innermost(marks):
        parts[name] = parts.get(name, 0.0) + (end - begin) * per_step
    return StepTimes(
        len(steps),
        sum(end - begin for begin, end in steps) * per_step,
        parts,
        _kernel_times(on_cpu, _innermost(marks), per_step),
        _covered([_interval(e) for e in events if _is_communication(e)], steps) * per_step,
    )


class StepProfiler:
    """Profiles `PROFILED_STEPS` steps of a training, after others that are not.

    Writes ``profile_rankN.json.gz``, a Chrome trace (ui.perfetto.dev, chrome://tracing), for each
    process, and on the main process ``profile.txt``, the table that is also logged.

    Args:
        folder: where to; it exists.
        device: of the training.
        logger: gets the table.
    """

    def __init__(self, folder: Path, device: torch.device, logger: logging.Logger) -> None:
        # Otherwise the tracer reports an error on stderr where there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._folder, self._logger = folder, logger
        self._profile = profile(
            activities=activities,
            schedule=schedule(
                wait=IDLE_STEPS, warmup=WARMUP_STEPS, active=PROFILED_STEPS, repeat=1
            ),
            on_trace_ready=self._write,
        )
        self._steps = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around the steps."""
        with self._profile:
            yield

    def step(self) -> None:
        """Notes the end of a step; writes the files after the last profiled one."""
        if self._steps < NEEDED_STEPS:
            self._steps += 1
            self._profile.step()

    def _write(self, profiled: profile) -> None:
        if self._steps < NEEDED_STEPS:
            return  # the training ended early; the reason is reported elsewhere
        trace = self._folder / f"profile_rank{get_rank()}.json.gz"
        with replacing(trace) as temporary:
            # torch compresses a file of this suffix.
            plain = temporary.with_name(f"{temporary.name}.json.gz")
            try:
                profiled.export_chrome_trace(str(plain))
                plain.replace(temporary)
            finally:
                plain.unlink(missing_ok=True)
        if get_rank() == 0:
            times = step_times(profiled.events())
            table = times.as_table()
            write_text(self._folder / "profile.txt", f"{table}\n")
            self._logger.info(
                "means of %d profiled steps (%s):\n%s", times.steps, trace.name, table
            )


def check_steps_left(steps: int) -> None:
    """Checks that a run is long enough to be profiled.

    Args:
        steps: left in the run.

    Raises:
        ValueError: it is not.
    """
    if steps < NEEDED_STEPS:
        raise ValueError(
            f"profile=True needs {NEEDED_STEPS} iterations, and {steps} are left in this run;"
            " train longer"
        )


def _interval(event: FunctionEvent) -> tuple[float, float]:
    return event.time_range.start, event.time_range.end


def _innermost(
    marks: Sequence[tuple[float, float, str]],
) -> list[tuple[float, float, str]]:
    """Cuts nested ranges into disjoint ones, each of which belongs to the innermost range.

    Args:
        marks: (begin, end, name), sorted; properly nested.

    Returns:
        The same, disjoint and sorted.
    """
    pieces: list[tuple[float, float, str]] = []
    open_marks: list[tuple[float, str]] = []
    now = 0.0

    def move(to: float) -> None:
        nonlocal now
        if open_marks and to > now:
            pieces.append((now, to, open_marks[-1][1]))
        now = max(now, to)

    for begin, end, name in [*marks, (float("inf"), float("inf"), "")]:
        while open_marks and open_marks[-1][0] <= begin:
            move(open_marks[-1][0])
            open_marks.pop()
        move(begin)
        open_marks.append((end, name))
    return pieces


def _kernel_times(
    on_cpu: Sequence[FunctionEvent], pieces: Sequence[tuple[float, float, str]], scale: float
) -> dict[str, float]:
    """Kernel times by the part in which a kernel was launched, by whichever thread."""
    times: dict[str, float] = {}
    for event in on_cpu:
        if not event.kernels:
            continue
        start = event.time_range.start
        name = next((n for begin, end, n in pieces if begin <= start < end), "other")
        duration = sum(kernel.duration for kernel in event.kernels)
        times[name] = times.get(name, 0.0) + duration * scale
    return times


def _is_communication(event: FunctionEvent) -> bool:
    """Whether an event is an exchange itself: NCCL's kernels, and gloo's work in its threads."""
    if event.device_type == DeviceType.CPU:
        return event.name.startswith("gloo:")
    return "nccl" in event.name.lower()


def _covered(
    intervals: Sequence[tuple[float, float]], within: Sequence[tuple[float, float]]
) -> float:
    """The time that intervals cover together, each moment once, inside the ranges ``within``."""
    total = 0.0
    for low, high in within:
        reached = low
        for begin, end in sorted(intervals):
            begin, end = max(begin, reached), min(end, high)
            if end > begin:
                total += end - begin
                reached = end
    return total
