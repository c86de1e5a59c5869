"""Losses, gradients and weights that are not finite, in one process and in two."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from two_processes import in_two_processes

from cwrgp.engine.finite import FiniteGuard, NonFinite, check_scale, check_weights
from cwrgp.engine.optimizers import LARC

CPU = torch.device("cpu")
SOUND = [torch.ones(3)]


def loss(value: float) -> Tensor:
    return torch.tensor(value)


def test_a_loss_that_is_not_finite_names_its_step():
    guard = FiniteGuard(CPU)
    guard.add(4, loss(1.0), SOUND)
    with pytest.raises(NonFinite, match="^the loss is nan at iteration 5$") as error:
        guard.add(5, loss(math.nan), SOUND)
    assert error.value.step == 5
    with pytest.raises(NonFinite, match="at iteration 5"):
        guard.mean_loss()


def test_the_mean_is_of_all_since_the_last_record():
    guard = FiniteGuard(CPU)
    for step, value in enumerate((1.0, 2.0, 6.0)):
        guard.add(step, loss(value), SOUND)
    assert guard.mean_loss() == 3.0
    guard.clear()
    guard.add(3, loss(7.0), SOUND)
    assert guard.mean_loss() == 7.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_found_although_the_loss_is(value):
    guard = FiniteGuard(CPU)
    gradients = [torch.ones(2, 2), torch.tensor([1.0, value])]
    with pytest.raises(NonFinite, match=f"^the gradient is {abs(value)} at iteration 7$"):
        guard.add(7, loss(1.0), gradients)


def test_the_largest_finite_gradient_is_finite():
    guard = FiniteGuard(CPU)
    guard.add(0, loss(1.0), [torch.full((4,), torch.finfo(torch.float32).max)])
    assert guard.mean_loss() == 1.0 and guard.found_inf.item() == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.Adam([p], lr=0.1, fused=True),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, fused=True),
        lambda p: LARC([{"params": [p], "adapt": False}], lr=0.1, fused=True),
    ],
)
def test_without_looking_the_optimizer_stays_before_the_first_bad_step(build):
    guard, weight = FiniteGuard(CPU, at_once=False), nn.Parameter(torch.ones(2))
    optimizer = build(weight)
    after = []
    for step, gradient in enumerate((1.0, math.nan, 1.0)):
        weight.grad = torch.full((2,), gradient)
        guard.add(step, loss(1.0), [weight.grad])
        optimizer.found_inf = guard.found_inf
        optimizer.step()
        after.append(weight.tolist())
    assert after[0] == after[1] == after[2] == pytest.approx([0.9, 0.9])
    with pytest.raises(NonFinite, match="the gradient is nan at iteration 1"):
        guard.mean_loss()


def test_weights_and_running_statistics_are_checked():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights(module, 3)
    module[1].running_var[1] = math.inf
    with pytest.raises(NonFinite, match="^the weights are not finite after iteration 3$"):
        check_weights(module, 3)


def test_a_loss_scale_that_keeps_falling_is_an_error():
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler.scale(weight.sum()).backward()
    check_scale(scaler, 0)
    weight.grad.fill_(math.nan)
    scaler.step(optimizer)
    scaler.update()
    with pytest.raises(NonFinite, match="not finite at iteration 1, down to a loss scale of 0.5"):
        check_scale(scaler, 1)


def one_of_two(rank: int) -> dict[str, str]:
    """A loss on one process only, a gradient on both, a weight on one: what each is told."""
    said = {}
    guard = FiniteGuard(CPU)
    guard.add(0, loss(math.nan if rank else 1.0), SOUND)
    try:
        guard.mean_loss()
    except NonFinite as error:
        said["loss"] = str(error)
    guard.clear()
    try:
        guard.add(1, loss(1.0), [torch.tensor([math.inf])])
    except NonFinite as error:
        said["gradient"] = str(error)
    try:
        check_weights(nn.ParameterList([torch.tensor([math.nan if rank else 1.0])]), 2)
    except NonFinite as error:
        said["weights"] = str(error)
    return said


@pytest.mark.dist
def test_two_processes_are_told_the_same_and_none_waits(tmp_path):
    first, second = in_two_processes(tmp_path, one_of_two)
    assert first == second == {
        "loss": "the loss is nan at iteration 0",
        "gradient": "the gradient is inf at iteration 1",
        "weights": "the weights are not finite after iteration 2",
    }  # fmt: skip
