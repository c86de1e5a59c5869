"""Step times by a clock that the test moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cwrgp.engine.loop import train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.engine.step import StepConfig
from cwrgp.engine.timer import StepTimer
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import StopRequest


class Clock:
    """Stands still but for `move`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


def test_pauses_do_not_count_and_waiting_does():
    clock = Clock()
    timer = StepTimer(clock)
    for _ in range(2):
        with timer.waiting():
            clock.move(1.0)
        clock.move(3.0)
        timer.count()
        with timer.paused():
            clock.move(50.0)
    assert timer.means() == (4.0, 1.0)
    timer.reset()
    clock.move(2.0)
    timer.count()
    assert timer.means() == (2.0, 0.0)


class Slow(Method):
    """Takes 3 seconds of its clock for a step."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.weight, self.clock = nn.Parameter(torch.zeros(())), clock

    def forward(self, views: list[torch.Tensor]) -> Output:
        self.clock.move(3.0)
        return Output({"loss_slow": self.weight * views[0].mean()}, torch.randn(2, 8, 4))


class Records:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def progress(self, iteration: int) -> tuple[str, float]:
        return "", 0.0

    def write(self, iteration: int, values: dict[str, float], *, line: str | None = None) -> None:
        self.values.append(values)

    def step(self) -> None:
        pass


class SlowCheckpoints:
    """Takes 1000 seconds for a checkpoint."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def save(self, state: dict[str, object], name: str) -> None:
        self.clock.move(1000.0)


@pytest.mark.parametrize(("eval_period", "checkpoint_period"), [(0, 0), (1, 0), (3, 0), (0, 3)])
def test_records_have_the_times_of_steps_whatever_is_between_them(eval_period, checkpoint_period):
    clock, writer = Clock(), Records()
    method = Slow(clock)

    def batches():
        while True:
            clock.move(0.5)
            yield [torch.ones(8, 1, 1, 1)] * 2

    def evaluate():
        clock.move(200.0)
        return {}

    train(
        method,
        torch.optim.SGD(method.parameters(), lr=0.1),
        batches(),
        plan=Plan(
            num_images=8, total_steps=8, steps_per_epoch=1, log_period=4,
            checkpoint_period=checkpoint_period, eval_period=eval_period,
        ),
        step_config=StepConfig(
            learning_rate=lambda step: 0.1,
            normalize=lambda images: images,
            precision=Precision(torch.device("cpu"), torch.float32),
            scaler=Precision(torch.device("cpu"), torch.float32).scaler(),
            accumulate=1,
            seed=0,
        ),
        start_step=0,
        checkpoints=SlowCheckpoints(clock),
        config="",
        writer=writer,
        monitor=TrainingMonitor(),
        evaluate=evaluate,
        stop=StopRequest(),
        clock=clock,
    )  # fmt: skip
    assert [(v["time"], v["data_time"]) for v in writer.values] == [(3.5, 0.5), (3.5, 0.5)]
