"""The table of a step's parts: from ranges that the test makes, and from real traces."""

from __future__ import annotations

import time

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from two_processes import in_two_processes

from cwrgp.comm import gather_with_gradient
from cwrgp.profiling import PARTS, StepTimes, _covered, _innermost, check_steps_left, part
from cwrgp.profiling import step_times as times_of


def trace(steps: int, work, **settings) -> StepTimes:
    """Profiles ``work`` as one step after another."""
    with profile(activities=[ProfilerActivity.CPU], **settings) as profiled:
        for _ in range(steps):
            with record_function("ProfilerStep#0"):
                work()
    return times_of(profiled.events())


def nested_parts() -> None:
    with part("data"):
        time.sleep(0.02)
    with part("forward"):
        time.sleep(0.03)
        with part("loss"):
            time.sleep(0.05)
        time.sleep(0.01)
    time.sleep(0.015)


def test_a_part_inside_another_is_not_counted_twice():
    times = trace(3, nested_parts)
    assert times.steps == 3 and times.parts.keys() == {"data", "forward", "loss"}
    # Sleeping takes at least as long as it is asked to, and on a busy machine longer.
    for name, least in (("data", 20), ("forward", 40), ("loss", 50)):
        assert least <= times.parts[name] < times.step
    assert times.step - sum(times.parts.values()) >= 15
    assert (times.communication, times.kernels) == (0, {})


def test_ranges_are_cut_where_the_innermost_changes():
    marks = [(0.0, 10.0, "a"), (2.0, 4.0, "b"), (4.0, 6.0, "c"), (5.0, 6.0, "d"), (12.0, 13.0, "a")]
    assert _innermost(marks) == [
        (0, 2, "a"),
        (2, 4, "b"),
        (4, 5, "c"),
        (5, 6, "d"),
        (6, 10, "a"),
        (12, 13, "a"),
    ]


def test_time_that_two_exchanges_share_counts_once_and_inside_the_steps_only():
    assert _covered([(5, 9), (1, 3), (2, 4), (8, 20)], [(0, 10), (10, 12)]) == 3 + 5 + 2
    assert _covered([], [(0, 10)]) == 0


def test_the_table_has_every_part_and_adds_up():
    times = StepTimes(2, 100.0, {"data": 25.0, "backward": 50.0}, {}, 30.0)
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in times.as_table().splitlines()]
    assert rows[0] == ["part", "ms per step", "share"]
    table = {name: (ms, share) for name, ms, share in rows[2:]}
    assert [*table] == [*PARTS, "other", "step", "communication"]
    assert table["backward"] == ("50.00", "50.0%") and table["loss"] == ("0.00", "0.0%")
    assert table["other"] == ("25.00", "25.0%") and table["step"] == ("100.00", "100.0%")
    assert table["communication"] == ("30.00", "30.0%")


def test_kernels_have_a_column_where_there_are_any():
    lines = StepTimes(1, 10.0, {"forward": 1.0}, {"forward": 6.0, "other": 2.0}, 0.0).as_table()
    cells = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines.splitlines()}
    assert cells["part"] == "ms of GPU kernels"
    assert (cells["forward"], cells["other"], cells["step"]) == ("6.00", "2.00", "8.00")
    assert cells["communication"] == ""


def exchanging(rank: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(256, 256))
    x = torch.randn(64, 256)

    def step() -> None:
        with part("forward"):
            y: Tensor = model(x)
            with part("loss"):
                loss = gather_with_gradient(y).square().mean()
        with part("backward"):
            loss.backward()
        dist.barrier()

    times = trace(2, step)
    return {"communication": times.communication, "step": times.step}


@pytest.mark.dist
def test_exchanges_of_two_processes_are_seen(tmp_path):
    for times in in_two_processes(tmp_path, exchanging):
        assert 0 < times["communication"] < times["step"]


def test_a_run_that_is_too_short_is_refused():
    check_steps_left(10)
    with pytest.raises(ValueError, match="^profile=True needs 10 iterations, and 9 are left in"):
        check_steps_left(9)
