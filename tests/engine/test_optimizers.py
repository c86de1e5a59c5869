"""Optimizers against steps written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cwrgp.engine.optimizers import LARC, OPTIMIZERS, build_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


def step_by_hand(p, grad, velocity, *, lr, decay, adapt, trust=0.01, momentum=0.9):
    """One step of SGD with momentum, with the layer-wise rate where it is wanted."""
    update = grad + decay * p
    if adapt and p.norm() > 0 and grad.norm() > 0:
        update = trust * p.norm() / (grad.norm() + decay * p.norm()) * update
    velocity = momentum * velocity + update
    return p - lr * velocity, velocity


@pytest.mark.parametrize("name", ["sgd", "lars", "larc"])
@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
def test_three_steps_by_hand(name, decay_bias_and_norm):
    module = network()
    optimizer = build_optimizer(
        name, module, lr=0.1, weight_decay=0.05, trust=0.01,
        decay_bias_and_norm=decay_bias_and_norm,
    )  # fmt: skip
    expected = {k: (p.detach().clone(), torch.zeros_like(p)) for k, p in module.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad()
        x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        module(x).square().sum().backward()
        for key, p in module.named_parameters():
            matrix = p.ndim > 1
            decayed = matrix or (decay_bias_and_norm and name != "lars")
            expected[key] = step_by_hand(
                expected[key][0], p.grad.clone(), expected[key][1], lr=0.1,
                decay=0.05 if decayed else 0.0,
                adapt=name == "larc" or (name == "lars" and matrix),
            )  # fmt: skip
        optimizer.step()
        for key, p in module.named_parameters():
            torch.testing.assert_close(p.detach(), expected[key][0], rtol=1e-12, atol=1e-14)


def test_a_tensor_of_zeros_is_not_scaled():
    p = nn.Parameter(torch.zeros(3, 2))
    optimizer = LARC([{"params": [p]}], lr=1.0, momentum=0.0, weight_decay=0.1, trust=0.001)
    p.grad = torch.ones(3, 2)
    optimizer.step()
    assert torch.equal(p.detach(), -torch.ones(3, 2))
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_are_left_out_and_the_state_comes_back(name):
    module = network()
    module[0].weight.requires_grad_(False)
    optimizer = build_optimizer(name, module, lr=0.1, weight_decay=0.1)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == 5 and not any(p is module[0].weight for p in held)
    module(torch.randn(4, 5, dtype=torch.float64)).sum().backward()
    optimizer.step()
    other = build_optimizer(name, module, lr=0.1, weight_decay=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="^optimizer 'adamw' is unknown; choose one of"):
        build_optimizer("adamw", network(), lr=0.1, weight_decay=0.0)


def test_larc_takes_its_rates_from_gradients_without_the_loss_scale():
    found = {}
    for scaled in (False, True):
        p = nn.Parameter(torch.tensor([3.0, 4.0]))
        optimizer = LARC([{"params": [p]}], lr=1.0, momentum=0.0, weight_decay=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        scaler.scale((p * torch.tensor([1.0, 2.0])).sum()).backward()
        scaler.step(optimizer)
        found[scaled] = p.detach()
    torch.testing.assert_close(found[True], found[False])
