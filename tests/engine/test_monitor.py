"""Statistics of the embeddings, warnings, and advice."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.models.methods import JointEmbedding, Method

KEYS = {"num_workers": "DATA.NUM_WORKERS", "learning rate": "SOLVER.BASE_LR", "eps": "METHOD.EPS"}


def draw(views: int, batch: int, width: int) -> torch.Tensor:
    return torch.randn(views, batch, width, generator=torch.Generator().manual_seed(0))


def test_the_advice_has_the_smallest_eigenvalue():
    whitened = JointEmbedding(nn.Identity(), nn.Identity(), CWRGPLoss(2, 8, eps=0.25))
    monitor, twice = TrainingMonitor(), draw(2, 8, 32)
    monitor.statistics(whitened, twice)
    seen = monitor.smallest_eigenvalue
    assert seen > 0.25
    twice[:, 1] = twice[:, 0]  # an image that is there twice: what is left is eps
    advice = monitor.advice(whitened, twice)
    assert "eigenvalue of the covariance is 0.25: try a larger eps, such as 1e-4, which" in advice
    lost = monitor.advice(whitened, torch.full((2, 8, 32), math.nan))
    assert f"was {seen:.3g} at the last record: try a larger eps" in lost
    assert monitor.advice(Method(), twice) == "Try a smaller learning rate"


def test_the_advice_names_the_keys_that_the_caller_knows():
    whitened = JointEmbedding(nn.Identity(), nn.Identity(), CWRGPLoss(2, 8))
    advice = TrainingMonitor(keys=KEYS).advice(whitened, draw(2, 8, 32))
    assert "try a larger eps (METHOD.EPS), such as" in advice
    assert advice.endswith("or a smaller learning rate (SOLVER.BASE_LR)")


@pytest.fixture
def warnings(monkeypatch):
    """What the logger is given, whatever earlier runs have set it up to do."""
    logger, messages = logging.getLogger("cwrgp"), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.WARNING)
    return messages


def low_rank(rank: int) -> torch.Tensor:
    return draw(2, 64, rank) @ torch.eye(rank, 32)


@pytest.mark.parametrize(
    ("step", "loss", "rank", "chance", "warned"),
    [
        (59, 1.95, 8, {"a": 2.0}, True),
        (59, 2.3, 8, {"a": 2.0}, True),
        (59, 1.2, 8, {"a": 2.0}, False),  # it learns
        (59, 1.95, 30, {"a": 2.0}, False),  # the embedding is as wide as before
        (19, 1.95, 8, {"a": 2.0}, False),  # too early to tell
        (59, 1.95, 8, {}, False),  # a method that does not know
    ],
)
def test_a_loss_at_chance_is_warned_of_where_the_rank_falls(
    warnings, step, loss, rank, chance, warned
):
    keys = {**KEYS, "crop scale": "AUGMENT.CROP_SCALE"}
    monitor = TrainingMonitor(keys=keys)
    monitor.start(draw(2, 64, 32))
    found = monitor.statistics(Method(), low_rank(rank))["embedding/effective_rank"]
    for _ in range(2):
        monitor.learning(step, {"a": loss, "b": 9.0}, found, chance)
    assert len(warnings) == warned
    if warned:
        assert f"the loss, {loss:.3g}, is near that of unrelated embeddings, 2" in warnings[0]
        assert "raise crop scale (AUGMENT.CROP_SCALE)" in warnings[0]
        assert "too large a learning rate (SOLVER.BASE_LR)" in warnings[0]


def test_nobody_waits_for_images_that_are_on_the_device(warnings):
    monitor = TrainingMonitor(num_workers=None, keys=KEYS)
    for _ in range(2):
        monitor.timing(1.0, 0.9)
    assert warnings == []


def test_a_collapse_and_waiting_for_data_are_warned_of_once(warnings):
    monitor, method = TrainingMonitor(num_workers=2, keys=KEYS), Method()
    healthy = draw(2, 64, 32)
    values = monitor.statistics(method, healthy)
    monitor.timing(1.0, 0.1)
    assert warnings == []
    assert 0.9 < values["embedding/std"] < 1.1 and values["embedding/effective_rank"] > 20
    for _ in range(2):
        monitor.statistics(method, healthy[:, :1].expand(2, 64, 32) + 1e-4 * healthy)
        monitor.statistics(method, healthy[:, :, :1] * torch.ones(32))
        monitor.timing(1.0, 0.5)
    assert len(warnings) == 2
    assert "collapsed or is about to: standard deviation" in warnings[0]
    expected = "50 % of the time is spent waiting for images: raise num_workers (DATA.NUM_WORKERS)"
    assert f"{expected} (now 2;" in warnings[1]
