"""INTL against matrices and loops written from its equations."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from oracles import assert_same_value_and_gradient, cosine, draw_views
from torch import Tensor

from cwrgp.losses.intl import INTLLoss, intl_loss, iterative_normalization, trace_loss, trace_weight
from cwrgp.whitening import whiten


def normalize_oracle(h: Tensor, iterations: int) -> Tensor:
    """(N, D), one matrix at a time, with the power of P as it stands in the paper."""
    num_samples, num_channels = h.shape
    x = torch.stack([row - row.sum() / num_channels for row in h])
    s = sum(torch.outer(x[:, d], x[:, d]) for d in range(num_channels)) / (num_channels - 1)
    trace = sum(s[n, n] for n in range(num_samples))
    p = torch.eye(num_samples, dtype=h.dtype)
    for _ in range(iterations):
        p = 1.5 * p - 0.5 * torch.linalg.matrix_power(p, 3) @ (s / trace)
    return p @ x / trace**0.5


def trace_oracle(z: Tensor) -> Tensor:
    terms = []
    for row in z:
        deviation = row - row.sum() / len(row)
        terms.append(((deviation**2).sum() / (len(row) - 1) - 1) ** 2)
    return sum(terms)


def alignment(a: Tensor, b: Tensor) -> Tensor:
    return sum(2 - 2 * cosine(x, y) for x, y in zip(a, b, strict=True)) / len(a)


def oracle(views: Tensor, beta: float, iterations: int) -> Tensor:
    z = [normalize_oracle(view, iterations) for view in views]
    terms = [
        alignment(z[i], z[0]) + beta * (trace_oracle(z[i]) + trace_oracle(z[0]))
        for i in range(1, len(z))
    ]
    return sum(terms) / (len(z) - 1)


def momentum_oracle(online: Tensor, target: Tensor, beta: float, iterations: int) -> Tensor:
    anchor = normalize_oracle(target.detach(), iterations)
    queries = [normalize_oracle(view, iterations) for view in online]
    return sum(alignment(q, anchor) + beta * trace_oracle(q) for q in queries) / len(queries)


def total(*args: Tensor, **kwargs: object) -> Tensor:
    parts = intl_loss(*args, **kwargs)
    assert list(parts) == ["loss_intl", "loss_trace"]
    return parts["loss_intl"] + parts["loss_trace"]


@pytest.mark.parametrize("num_views", [2, 3, 4])
@pytest.mark.parametrize(("iterations", "weight"), [(4, None), (2, 0.3)])
def test_without_momentum_value_and_gradient_equal_the_oracle(num_views, iterations, weight):
    beta = 0.01 * (math.log2(12) - 3) if weight is None else weight
    assert_same_value_and_gradient(
        functools.partial(total, iterations=iterations, weight=weight),
        functools.partial(oracle, beta=beta, iterations=iterations),
        draw_views(num_views, 12, 20),
    )


@pytest.mark.parametrize("num_online", [1, 2, 3])
def test_with_momentum_value_and_gradient_equal_the_oracle(num_online):
    target = draw_views(1, 12, 20, seed=1)[0].detach().requires_grad_()
    assert_same_value_and_gradient(
        lambda views: total(views, target),
        lambda views: momentum_oracle(views, target, 0.01 * (math.log2(12) - 3), 4),
        draw_views(num_online, 12, 20),
    )
    total(draw_views(num_online, 12, 20), target).backward()
    assert target.grad is None


def test_many_iterations_whiten_the_samples():
    x = draw_views(3, 6, 40).detach()
    z = iterative_normalization(x, iterations=14)
    torch.testing.assert_close(z, whiten(x, axis="channel"))
    torch.testing.assert_close(trace_loss(z), torch.zeros(3, dtype=z.dtype), rtol=0, atol=1e-18)


def test_few_iterations_do_not_depend_on_the_scale():
    x = draw_views(2, 6, 40).detach()
    torch.testing.assert_close(iterative_normalization(5 * x), iterative_normalization(x))


def test_the_traces_weight_is_the_papers():
    assert trace_weight(256) == pytest.approx(0.05) and trace_weight(128) == pytest.approx(0.04)
    with pytest.raises(ValueError, match="a global batch of 4 gives INTL's trace loss a negative"):
        trace_weight(4)


def test_half_precision_under_autocast_is_iterated_in_fp32():
    views = draw_views(2, 16, 64).detach().bfloat16()
    loss = INTLLoss()
    expected = loss(views.double())
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(views)
    for name, value in got.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=0)


def test_the_module_passes_its_arguments_on():
    views = draw_views(3, 8, 5).detach()
    assert INTLLoss(2, 0.5)(views) == intl_loss(views, iterations=2, weight=0.5)
    assert INTLLoss()(views[1:], views[0]) == intl_loss(views[1:], views[0])


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"INTL needs two views or more, \(V, N, D\), got \(1, 8"):
        INTLLoss()(torch.ones(1, 8, 5))
    with pytest.raises(ValueError, match="^iterations 0 is below 1"):
        INTLLoss(0)
    with pytest.raises(ValueError, match="a global batch of 7 gives .* or set the weight yourself"):
        INTLLoss().check(7, 16)
    INTLLoss().check(8, 16)
    INTLLoss(weight=0.1).check(7, 16)
