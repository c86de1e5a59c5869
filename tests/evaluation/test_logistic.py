"""Logistic regression against scikit-learn, and the optimum's own condition."""

from __future__ import annotations

import pytest
import torch
from sklearn import linear_model
from torch.nn import functional as F

from cwrgp.evaluation.logistic import fit_logistic_regression


def clouds(num_classes: int, per_class: int = 40, width: int = 6, spread: float = 1.5):
    generator = torch.Generator().manual_seed(num_classes)
    centres = spread * torch.randn(num_classes, width, generator=generator)
    labels = torch.arange(num_classes).repeat(per_class)
    noise = torch.randn(len(labels), width, generator=generator)
    return (centres[labels] + noise).float(), labels


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("inverse_penalty", [1.0, 0.05])
def test_the_optimum_is_scikit_learns(num_classes, inverse_penalty):
    x, y = clouds(num_classes)
    reference = linear_model.LogisticRegression(C=inverse_penalty, max_iter=10000, tol=1e-10)
    reference.fit(x.double().numpy(), y.numpy())
    ours, converged = fit_logistic_regression(
        x, y, num_classes, inverse_penalty=inverse_penalty, tolerance=1e-8
    )
    assert converged
    expected = torch.from_numpy(reference.predict_proba(x.double().numpy()))
    got = ours(x.double()).softmax(1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    if num_classes > 2:
        torch.testing.assert_close(
            ours.weight, torch.from_numpy(reference.coef_), rtol=0, atol=1e-6
        )


def test_the_default_predicts_what_scikit_learns_default_predicts():
    x, y = clouds(7, spread=0.8)
    queries, _ = clouds(7, per_class=200, spread=0.8)
    reference = linear_model.LogisticRegression(max_iter=1000).fit(x.numpy(), y.numpy())
    ours, _ = fit_logistic_regression(x, y, 7)
    expected = torch.from_numpy(reference.predict(queries.numpy()))
    agreement = (ours(queries.double()).argmax(1) == expected).double().mean()
    assert agreement > 0.999
    assert (expected != torch.arange(7).repeat(200)).any()


def test_the_gradient_vanishes_at_the_optimum():
    x, y = clouds(4)
    ours, converged = fit_logistic_regression(x, y, 4, inverse_penalty=0.5, tolerance=1e-8)
    assert converged
    weight, bias = ours.weight.clone().requires_grad_(), ours.bias.clone().requires_grad_()
    loss = 0.5 * F.cross_entropy(F.linear(x.double(), weight, bias), y, reduction="sum")
    (loss + weight.square().sum() / 2).backward()
    assert weight.grad.abs().max() < 1e-6 and bias.grad.abs().max() < 1e-6


def test_an_absent_class_is_never_chosen_and_changes_nothing():
    x, y = clouds(3)
    ours, _ = fit_logistic_regression(x, y, 3)
    wider, _ = fit_logistic_regression(x, 2 * y, 6)
    assert torch.equal(wider.weight[::2], ours.weight)
    assert set(wider(x.double()).argmax(1).tolist()) == {0, 2, 4}


def test_what_has_not_converged_says_so():
    x, y = clouds(5)
    assert not fit_logistic_regression(x, y, 5, max_iterations=2)[1]


def test_features_that_are_no_numbers_are_an_error():
    x, y = clouds(3)
    x[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="objective is nan"):
        fit_logistic_regression(x, y, 3)
