"""The choice of the number format: from times, from the cache, in several processes."""

from __future__ import annotations

import json
import logging
import os

import pytest
import torch
from torch import nn
from two_processes import in_two_processes

from cwrgp.number_format import (
    CANDIDATES,
    PLAIN,
    NumberFormat,
    choose_format,
    describe_machine,
    fastest,
    has_fast_bf16,
    time_steps,
)

LAST = NumberFormat("fp32", "channels_last")
BF16 = NumberFormat("bf16", "channels_last")


@pytest.mark.parametrize(
    ("fp32", "fp32_last", "bf16", "expected"),
    [
        (1.0, 1.1, 0.4, BF16),
        (1.0, 1.1, 1 / 0.85, PLAIN),  # bf16 instructions that are slow
        (1.0, 0.8, 1.2, LAST),
        (1.0, 0.8, 0.5, BF16),
        (1.0, 0.96, 0.97, PLAIN),  # within the margin
        (1.0, 0.8, 0.77, LAST),  # bf16 must beat the faster one of fp32
        (1.0, 0.8, None, LAST),
        (1.0, 1.0, None, PLAIN),
    ],
)
def test_the_fastest_format_with_a_margin_for_the_plainer_one(fp32, fp32_last, bf16, expected):
    seconds = {PLAIN: fp32, LAST: fp32_last} | ({} if bf16 is None else {BF16: bf16})
    assert fastest(seconds) == expected


def test_the_formats_are_timed_in_turn_with_the_same_images():
    calls: list[tuple[NumberFormat, int]] = []
    network = nn.Linear(8, 8)

    def make_step(chosen):
        def step(images):
            calls.append((chosen, images))
            network(torch.ones(images, 8)).sum().backward()

        return step

    seconds = time_steps(make_step, 16, rounds=2)
    formats = [f for f in CANDIDATES if f.dtype == "fp32" or has_fast_bf16(torch.device("cpu"))]
    assert list(seconds) == formats and all(value > 0 for value in seconds.values())
    assert calls[:2] == [(PLAIN, 2)] * 2
    assert calls[2:] == [(f, 16) for f in formats] * 3  # one warms up
    calls.clear()
    time_steps(make_step, 16, rounds=1, seconds_per_step=0)
    assert {images for _, images in calls} == {2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "number_formats"


class Times:
    """Times that were given, and how often they were asked for."""

    def __init__(self, bf16: float) -> None:
        self.seconds = {PLAIN: 1.0, LAST: 1.0, BF16: bf16}
        self.count = 0

    def __call__(self) -> dict[NumberFormat, float]:
        self.count += 1
        return self.seconds


def test_what_was_measured_is_cached_for_each_model_and_number_of_threads(cache):
    slow, fast = Times(1.2), Times(0.5)
    assert choose_format({"network": "a"}, slow) == (
        PLAIN,
        "measured: fp32 contiguous 1000 ms, fp32 channels_last 1000 ms, bf16 channels_last 1200 ms",
    )
    assert choose_format({"network": "a"}, fast)[0] == PLAIN and fast.count == 0
    assert choose_format({"network": "b"}, fast)[0] == BF16 and fast.count == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert choose_format({"network": "a"}, fast)[0] == BF16 and fast.count == 2
    finally:
        torch.set_num_threads(threads)
    contents = [json.loads(file.read_text()) for file in cache.iterdir()]
    assert len(contents) == 3
    assert {"network": "b", **describe_machine()} in [content["of"] for content in contents]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"seconds": {}}', '{"seconds": {"fp32/contiguous": -1}}', "\xff"]
)
def test_a_damaged_cache_is_measured_again(cache, caplog, content):
    times = Times(0.5)
    choose_format({}, times)
    (file,) = cache.iterdir()
    file.write_bytes(content.encode("latin-1"))
    with caplog.at_level(logging.WARNING, logger="cwrgp"):
        assert choose_format({}, times)[0] == BF16
    assert times.count == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{file} is unusable (")
    assert record.getMessage().endswith("): the number format is measured again")
    choose_format({}, times)
    assert times.count == 2


def test_a_cache_that_cannot_be_written_costs_a_measurement(cache, caplog):
    cache.parent.write_text("a file where the folder would be")
    times = Times(0.5)
    with caplog.at_level(logging.WARNING, logger="cwrgp"):
        assert choose_format({}, times)[0] == BF16
    assert "the measured number format is not cached: " in caplog.text
    assert times.count == 1


def choose_by_rank(rank: int, folder: str) -> list[str]:
    os.environ["CWRGP_CACHE"] = f"{folder}/{rank}"
    chosen, times = choose_format({}, Times((0.5, 1.5)[rank]))
    return [*chosen, times]


@pytest.mark.dist
def test_all_processes_have_the_choice_of_the_main_one(tmp_path):
    a, b = in_two_processes(tmp_path, choose_by_rank, str(tmp_path / "cache"))
    assert a == b and a[:2] == [*BF16]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["0"]
