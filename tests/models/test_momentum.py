"""Momentum networks: their average, their BatchNorm, and what they see."""

from __future__ import annotations

import math

import pytest
import torch
from method_configs import MOMENTUM, Linear, draw_doubles, draw_images, is_momentum, make_cfg, total
from torch import nn

from cwrgp.builders.methods import build_method
from cwrgp.losses.base import Loss
from cwrgp.models.methods import MomentumINTL
from cwrgp.models.momentum import momentum_at


@pytest.mark.parametrize("name", MOMENTUM)
def test_momentum_networks_follow_the_hand_calculation(name):
    method = build_method(make_cfg(name)).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    expected = {key: value.clone() for key, value in method.named_parameters() if is_momentum(key)}
    for step in range(3):
        method.set_progress(step=step, total_steps=10, steps_per_epoch=5)
        optimizer.zero_grad()
        total(method, draw_images(16, 16, seed=step)).backward()
        optimizer.step()
        before = {key: value.clone() for key, value in method.named_parameters()}
        assert all(torch.equal(before[key], expected[key]) for key in expected)
        method.update_target()
        m = 1 - 0.1 * (1 + math.cos(math.pi * step / 10)) / 2
        after = dict(method.named_parameters())
        for key, value in expected.items():
            online = before[key.removeprefix("momentum_")]
            expected[key] = m * value + (1 - m) * online
            torch.testing.assert_close(after[key], expected[key], rtol=1e-5, atol=1e-7)
            expected[key] = after[key].clone()
            assert torch.equal(online, after[key.removeprefix("momentum_")])
    assert not torch.equal(method.momentum_encoder.conv1.weight, method.encoder.conv1.weight)


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
