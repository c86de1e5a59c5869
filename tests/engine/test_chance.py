"""A run that learns nothing says so within its first hundred steps."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from cwrgp.engine.loop import train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.engine.progress import MetricWriter
from cwrgp.engine.step import StepConfig
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import StopRequest

CPU = torch.device("cpu")


class Shrinking(Method):
    """The loss stays at chance, or falls; the embeddings lose a dimension at each step, down to
    ``left`` of 32."""

    def __init__(self, learns: bool, left: int) -> None:
        super().__init__()
        self.weight, self.learns, self.steps = nn.Parameter(torch.ones(())), learns, 0
        self.left = left

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        assert (batch_size, num_views, num_channels) == (64, 2, 32)
        return {"loss_shrinking": 2.0}

    def forward(self, views: list[Tensor]) -> Output:
        self.steps += 1
        width = max(self.left, 32 - self.steps)
        loss = 2.0 * 0.98**self.steps if self.learns else 1.95
        embeddings = torch.randn(2, 64, width) @ torch.eye(width, 32)
        return Output({"loss_shrinking": loss + 0 * self.weight}, embeddings)


def warnings_of(
    monkeypatch, *, learns: bool, left: int = 8, start_step: int = 0
) -> list[tuple[int, str]]:
    """The steps at which a run warns, and of which state."""
    method, found = Shrinking(learns, left), []
    logger, handler = logging.getLogger("cwrgp"), logging.Handler()
    handler.emit = lambda record: found.append((method.steps, record.getMessage()))
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.WARNING)
    train(
        method,
        torch.optim.SGD(method.parameters(), lr=0.1),
        iter([[torch.ones(64, 1, 1, 1)] * 2] * 100),
        plan=Plan(
            num_images=64, total_steps=100, steps_per_epoch=1, log_period=20,
            checkpoint_period=0, eval_period=0,
        ),
        step_config=StepConfig(
            learning_rate=lambda step: 0.1,
            normalize=lambda images: images,
            precision=Precision(CPU, torch.float32),
            scaler=Precision(CPU, torch.float32).scaler(),
            accumulate=1,
            seed=0,
        ),
        start_step=start_step,
        checkpoints=None,
        config="",
        writer=MetricWriter([], start_step=start_step, total_steps=100, steps_per_epoch=1),
        monitor=TrainingMonitor(),
        evaluate=dict,
        stop=StopRequest(),
    )  # fmt: skip
    return [(step, text.partition(":")[0]) for step, text in found]


def test_a_loss_at_chance_is_warned_of_within_a_hundred_steps(monkeypatch):
    assert warnings_of(monkeypatch, learns=False) == [(60, "loss at chance level")]
    assert warnings_of(monkeypatch, learns=True) == []


@pytest.mark.parametrize("learns", [False, True])
def test_few_dimensions_that_are_left_are_a_collapse_whatever_the_loss_does(monkeypatch, learns):
    assert warnings_of(monkeypatch, learns=learns, left=2) == [(60, "dimensional collapse")]


def test_a_resumed_run_does_not_take_its_first_rank_for_that_of_a_start(monkeypatch):
    """The rank falls from there on, too."""
    assert warnings_of(monkeypatch, learns=False, start_step=5) == []
