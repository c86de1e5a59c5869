"""Momentum networks: their average, their BatchNorm, and what they see."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from method_configs import MOMENTUM, Linear, draw_doubles, draw_images, is_momentum, make_cfg, total
from torch import nn

from cwrgp.builders.methods import build_method
from cwrgp.losses.base import Loss
from cwrgp.models.momentum import momentum_at
from cwrgp.models.momentum_methods import MomentumINTL


def parameters(method, *, momentum):
    return {
        key.removeprefix("momentum_"): value.detach().clone()
        for key, value in method.named_parameters()
        if is_momentum(key) == momentum
    }


# When the networks move, and by the momentum of which step: before step t by m_(t + 1), or after
# it by m_t.
@pytest.mark.parametrize(("name", "ahead"), [("byol", 0), ("intl with momentum", 1)])
def test_momentum_networks_follow_the_hand_calculation(name, ahead):
    method = build_method(make_cfg(name)).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    expected = parameters(method, momentum=True)

    def move(step):
        m = 1 - 0.1 * (1 + math.cos(math.pi * (step + ahead) / 10)) / 2
        online = parameters(method, momentum=False)
        for key, value in expected.items():
            expected[key] = m * value + (1 - m) * online[key]

    def assert_as_expected():
        for key, value in parameters(method, momentum=True).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-7)

    for step in range(4):
        method.set_progress(step=step, total_steps=10, steps_per_epoch=5)
        if ahead:
            move(step)
        assert_as_expected()
        optimizer.zero_grad()
        total(method, draw_images(16, 16, seed=step)).backward()
        optimizer.step()
        assert_as_expected()
        online = parameters(method, momentum=False)
        method.update_target()
        if not ahead:
            move(step)
        assert_as_expected()
        for key, value in parameters(method, momentum=False).items():
            assert torch.equal(value, online[key])
    assert not torch.equal(method.momentum_encoder.conv1.weight, method.encoder.conv1.weight)


@pytest.mark.parametrize("name", MOMENTUM)
def test_a_run_that_stops_between_two_steps_goes_on_in_the_same_bits(name):
    def steps(method, optimizer, first, last):
        for step in range(first, last):
            method.set_progress(step=step, total_steps=4, steps_per_epoch=2)
            optimizer.zero_grad()
            total(method, draw_images(16, 16, seed=step)).backward()
            optimizer.step()
            method.update_target()

    def start(seed):
        method = build_method(make_cfg(name, "SEED", seed)).train()
        return method, torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)

    whole, stopped, resumed = start(0), start(0), start(1)
    steps(*whole, 0, 4)
    steps(*stopped, 0, 2)
    for old, new in zip(stopped, resumed, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    steps(*resumed, 2, 4)
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


def test_the_momentum_rises_from_the_first_to_one():
    assert momentum_at(0, 100, first=0.996) == pytest.approx(0.996, abs=1e-15)
    assert momentum_at(50, 100, first=0.996) == pytest.approx(0.998, abs=1e-15)
    assert momentum_at(100, 100, first=0.996) == 1


def test_momentum_networks_normalise_with_the_statistics_of_the_batch():
    method = build_method(make_cfg("byol")).train()
    views = draw_images(16, 16)
    targets = method.targets(views)
    assert not targets.requires_grad
    # Still the same weights: in training mode the running statistics have no say.
    for buffer in ("running_mean", "running_var"):
        getattr(method.momentum_encoder.bn1, buffer).fill_(7)
    torch.testing.assert_close(method.targets(views), targets)
    online = [method.projector(method.encoder(view)) for view in views]
    torch.testing.assert_close(targets, torch.stack(online))


def test_intl_with_momentum_never_sends_view_0_through_the_online_network():
    seen = []

    class Record(Loss):
        def forward(self, online, target):
            seen.append((online, target))
            return {"loss_intl": online.sum()}

    method = MomentumINTL(Linear(), nn.Identity(), Record(), 0.99)
    with torch.no_grad():
        method.momentum_encoder.layer.weight.mul_(2)
    views = draw_doubles(3)
    method(views)
    online, target = seen[0]
    torch.testing.assert_close(online, torch.stack([method.encoder(view) for view in views[1:]]))
    torch.testing.assert_close(target, 2 * method.encoder(views[0]))
