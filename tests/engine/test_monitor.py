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
from cwrgp.similarity import negative_cosine, positive_cosine
from cwrgp.spectrum import covariance_spectrum, effective_rank, normalized_stable_rank

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
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield messages
    logger.setLevel(before)


def say(monitor, embeddings, *, step=0, losses=None, chance=None, method=None):
    """What a record does: statistics, and the verdict."""
    method = method or Method()
    values = monitor.statistics(method, embeddings)
    monitor.verdict(step, method, embeddings, values, losses or {}, chance or {})
    return values


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
    for at in (step, step + 20):
        say(monitor, low_rank(rank), step=at, losses={"a": loss, "b": 9.0}, chance=chance)
    assert len(warnings) == warned
    if warned:
        assert warnings[0].startswith(f"loss at chance level: loss {loss:.3g}, ")
        assert f"{50 * loss:.0f} % of that of unrelated embeddings, 2;" in warnings[0]
        assert "raise crop scale (AUGMENT.CROP_SCALE)" in warnings[0]
        assert "too large or far too small a learning rate (SOLVER.BASE_LR)" in warnings[0]


def test_nobody_waits_for_images_that_are_on_the_device(warnings):
    monitor = TrainingMonitor(num_workers=None, keys=KEYS)
    for _ in range(2):
        monitor.timing(1.0, 0.9)
    assert warnings == []


def test_a_collapse_and_waiting_for_data_are_warned_of_once(warnings):
    monitor = TrainingMonitor(num_workers=2, keys=KEYS)
    healthy = draw(2, 64, 32)
    values = say(monitor, healthy)
    monitor.timing(1.0, 0.1)
    assert warnings == []
    assert 0.9 < values["embedding/std"] < 1.1 and values["embedding/effective_rank"] > 20
    for step in (20, 40, 60):
        say(monitor, healthy[:, :1].expand(2, 64, 32) + 1e-4 * healthy, step=step)
        say(monitor, healthy[:, :, :1] * torch.ones(32), step=step)
        monitor.timing(1.0, 0.5)
        assert len(warnings) == (2 if step == 20 else 3)
    warnings.insert(1, warnings.pop())
    assert warnings[0].startswith("complete collapse: standard deviation")
    assert warnings[1].startswith("dimensional collapse: standard deviation")
    expected = "50 % of the time is spent waiting for images: raise num_workers (DATA.NUM_WORKERS)"
    assert f"{expected} (now 2;" in warnings[2]


def test_ranks_that_recover_are_not_warned_of(warnings):
    monitor, healthy = TrainingMonitor(), draw(2, 64, 32)
    lost = healthy[:, :, :1] * torch.ones(32)
    for step in range(0, 100, 10):  # lost for 11 steps at a time
        say(monitor, healthy if step % 30 == 20 else lost, step=step)
    assert warnings == []
    for step in (100, 110, 120):
        say(monitor, lost, step=step)
        assert len(warnings) == (step >= 110)  # lost since step 90


def test_the_encoder_has_statistics_of_its_own():
    embeddings, features = draw(2, 300, 32), draw(1, 300, 48)[0]
    values = TrainingMonitor().statistics(Method(), embeddings, features)
    spectrum = covariance_spectrum(features[:256])  # a sub-sample
    assert values["encoder/effective_rank"] == float(effective_rank(spectrum))
    assert values["encoder/numerical_rank"] == 48 and 0.9 < values["encoder/std"] < 1.1
    assert values["encoder/normalized_stable_rank"] == float(normalized_stable_rank(features[:256]))
    sample = embeddings[:, :256]
    assert values["embedding/positive_cosine"] == float(positive_cosine(*sample))
    assert values["embedding/negative_cosine"] == float(negative_cosine(sample[0]))
    alone = TrainingMonitor().statistics(Method(), embeddings[:1])
    assert "embedding/positive_cosine" not in alone and "encoder/std" not in alone


def test_the_loss_of_one_step_is_averaged_over_twenty(warnings):
    """A loss of 1.86 and 1.98 in turn is at 96 %, where that of every second step is below 95 %."""
    monitor = TrainingMonitor()
    monitor.start(draw(2, 64, 32))
    for step in range(100):
        loss = 1.86 if step % 2 else 1.98
        say(monitor, low_rank(8), step=step, losses={"a": loss}, chance={"a": 2.0})
    assert len(warnings) == 1 and " 96 % of that of unrelated" in warnings[0]


@pytest.mark.parametrize(("fall", "warned"), [(0.0, [220]), (1e-4, [220]), (2e-4, [])])
def test_a_loss_that_is_stuck_below_the_threshold_is_told_from_one_that_falls_slowly(
    warnings, fall, warned
):
    """Each step takes so much of the share. Runs with a long warm-up pass through such shares."""
    monitor, found = TrainingMonitor(), []
    monitor.start(draw(2, 64, 32))
    for step in range(0, 400, 20):
        loss = {"a": 2 * (0.945 - fall * (step - 200))}
        rank = 8 if step > 150 else 30
        say(monitor, low_rank(rank), step=step, losses=loss, chance={"a": 2.0})
        if len(warnings) > len(found):
            found.append(step)
    assert found == warned and all("loss at chance level" in text for text in warnings)


def test_a_loss_that_equal_views_leave_high_is_measured_from_there(warnings):
    """As SimCLR's with many samples: of 6.2 for unrelated views, equal ones leave 4.2."""
    for loss, said in ((6.1, 1), (5.6, 0)):  # 98 and 90 % of 6.2, but 95 and 70 % of the way
        monitor = TrainingMonitor()
        monitor.start(draw(2, 64, 32))
        for step in (60, 80):
            values = monitor.statistics(Method(), low_rank(8))
            arguments = (step, Method(), low_rank(8), values, {"a": loss + 0.01}, {"a": 6.2}, 4.2)
            monitor.verdict(*arguments)
        assert len(warnings) == said
        warnings.clear()


def test_a_healthy_run_says_so_once_and_is_not_warned_of(warnings):
    logging.getLogger("cwrgp").setLevel(logging.INFO)
    monitor = TrainingMonitor()
    monitor.start(draw(2, 64, 32))
    for step in range(0, 200, 20):
        say(monitor, low_rank(8), step=step, losses={"a": 1.5}, chance={"a": 2.0})
    assert len(warnings) == 1 and warnings[0].startswith("healthy: loss 1.5, 75 % of that")


def test_a_loss_without_a_value_of_chance_is_not_called_healthy(warnings):
    logging.getLogger("cwrgp").setLevel(logging.INFO)
    monitor = TrainingMonitor()
    for step in range(0, 200, 20):
        say(monitor, low_rank(8), step=step, losses={"a": 1.5}, chance={})
    assert len(warnings) == 1 and warnings[0].startswith("no sign of a collapse: standard dev")


def test_a_first_step_that_is_not_finite_is_left_to_the_loop():
    TrainingMonitor().start(torch.full((2, 8, 32), math.nan))
