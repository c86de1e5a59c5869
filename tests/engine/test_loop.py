"""The parts of a step: accumulated gradients, losses that are not finite, warnings."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor, nn

from cwrgp.engine.loop import Step, _accumulated
from cwrgp.engine.monitor import NonFiniteLoss, Watch
from cwrgp.engine.precision import autocast, build_scaler
from cwrgp.losses.base import GatheredLoss
from cwrgp.losses.cwrgp import CWRGPLoss, cwrgp_loss
from cwrgp.models.methods import JointEmbedding

CPU = torch.device("cpu")


def make_method() -> nn.Module:
    """Without BatchNorm, whose statistics are those of a part; and without random draws."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 16), nn.Tanh())

    def loss(views: Tensor) -> Tensor:
        return cwrgp_loss(views, num_groups=2, subbatch_size=4)

    return JointEmbedding(encoder, nn.Linear(16, 32), GatheredLoss(loss)).double()


def how(accumulate: int, dtype: torch.dtype = torch.float32) -> Step:
    return Step(
        learning_rate=lambda step: 0.1,
        normalize=lambda images: images,
        device=CPU,
        autocast=autocast(CPU, False),
        scaler=build_scaler(CPU, dtype),
        memory_format=torch.contiguous_format,
        accumulate=accumulate,
        seed=0,
    )


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(16, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    found = {}
    for accumulate in (1, parts):
        method = make_method()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        output, losses = _accumulated(method, views, optimizer, how(accumulate))
        assert output.embeddings.shape == (3, 16 // accumulate, 32)
        found[accumulate] = losses["loss_cwrgp"], [p.grad for p in method.parameters()]
    torch.testing.assert_close(found[1], found[parts], rtol=1e-10, atol=1e-12)


def test_the_scaler_scales_and_its_state_comes_back():
    method = make_method()
    views = [torch.rand(8, 3, 4, 4, dtype=torch.float64) for _ in range(2)]
    gradients = {}
    for dtype in (torch.float32, torch.float16):
        step = how(1, dtype)
        _accumulated(method, views, torch.optim.SGD(method.parameters(), lr=0.1), step)
        gradients[dtype] = method.projector.weight.grad.clone()
    scale = step.scaler.get_scale()
    assert scale == 2.0**16
    torch.testing.assert_close(gradients[torch.float16], gradients[torch.float32] * scale)
    state = step.scaler.state_dict() | {"scale": 8.0}
    other = build_scaler(CPU, torch.float16)
    other.load_state_dict(state)
    assert other.state_dict()["scale"] == 8.0


def test_a_loss_that_is_not_finite_names_its_step():
    watch = Watch()
    watch.add(4, torch.tensor(1.0))
    with pytest.raises(NonFiniteLoss, match="the loss is nan at iteration 5") as error:
        watch.add(5, torch.tensor(math.nan))
    assert error.value.step == 5
    with pytest.raises(NonFiniteLoss, match="at iteration 5"):
        watch.mean()


def test_the_advice_has_the_smallest_eigenvalue():
    whitened = JointEmbedding(nn.Identity(), nn.Identity(), CWRGPLoss(2, 8, eps=0.25))
    watch, twice = Watch(), torch.randn(2, 8, 32)
    watch.statistics(whitened, twice)
    seen = watch.smallest_eigenvalue
    assert seen > 0.25
    twice[:, 1] = twice[:, 0]  # an image that is there twice: what is left is eps
    assert "eigenvalue of the covariance is 0.25: a larger METHOD" in watch.advice(whitened, twice)
    lost = watch.advice(whitened, torch.full((2, 8, 32), math.nan))
    assert f"was {seen:.3g} when last looked at: a larger METHOD" in lost
    advice = watch.advice(make_method(), twice)
    assert advice == "A smaller SOLVER.BASE_LR helps"


def test_the_mean_is_of_all_since_the_last_record():
    watch = Watch()
    for step, loss in enumerate((1.0, 2.0, 6.0)):
        watch.add(step, torch.tensor(loss))
    assert (watch.mean(), len(watch)) == (3.0, 3)
    watch.clear()
    watch.add(3, torch.tensor(7.0))
    assert (watch.mean(), len(watch)) == (7.0, 1)


@pytest.fixture
def warnings(monkeypatch):
    """What the logger is given, whatever earlier runs have set it up to do."""
    logger, messages = logging.getLogger("cwrgp"), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.WARNING)
    return messages


def test_a_collapse_and_waiting_for_data_are_warned_of_once(warnings):
    watch, method = Watch(), make_method()
    healthy = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    values = watch.statistics(method, healthy)
    watch.timing(1.0, 0.1, 2)
    assert warnings == []
    assert 0.9 < values["embedding/std"] < 1.1 and values["embedding/effective_rank"] > 20
    for _ in range(2):
        watch.statistics(method, healthy[:, :1].expand(2, 64, 32) + 1e-4 * healthy)
        watch.statistics(method, healthy[:, :, :1] * torch.ones(32))
        watch.timing(1.0, 0.5, 2)
    assert len(warnings) == 2
    assert "collapsed or is about to: standard deviation" in warnings[0]
    assert (
        "50 % of the time is spent waiting for images: raise DATA.NUM_WORKERS (now 2,"
        in (warnings[1])
    )
