"""Logistic regression on frozen features, to the optimum.

The authors use scikit-learn's ``LogisticRegression(max_iter=1000)``. The same strictly convex
objective, C sum_i CE_i + ||W||^2 / 2 with C = 1 and free intercepts, is minimised here by torch's
L-BFGS with scikit-learn's memory and stopping rule. It has the same optimum, runs on the device of
the features and needs no other package. The tests compare both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fit_logistic_regression(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    inverse_penalty: float = 1.0,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
) -> tuple[nn.Linear, bool]:
    """Multinomial logistic regression with an L2 penalty on the weights, in float64.

    Args:
        features: (n, F).
        labels: int64 (n,), of two classes or more.
        num_classes: classes without samples are never predicted.
        inverse_penalty: C, the inverse of the penalty's weight.
        max_iterations: of L-BFGS.
        tolerance: stops where no component of the gradient of objective / (C n) is larger.

    Returns:
        A float64 classifier (B, F) -> (B, num_classes), and whether the tolerance was reached.

    Raises:
        FloatingPointError: the objective is not finite.
    """
    x = features.double()
    present, y = labels.unique(return_inverse=True)
    assert len(present) > 1
    weight = x.new_zeros(len(present), x.shape[1], requires_grad=True)
    bias = x.new_zeros(len(present), requires_grad=True)
    # With two classes scikit-learn has one row w, which stands for the rows w / 2 and -w / 2 here.
    # Their squared norm is ||w||^2 / 2, the whole of scikit-learn's penalty.
    penalty = (2 if len(present) == 2 else 1) / (2 * inverse_penalty * len(x))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        max_eval=50 * max_iterations,
        history_size=10,
        tolerance_grad=tolerance,
        tolerance_change=0.0,  # only the gradient or max_iterations stops it
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + penalty * weight.square().sum()
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the logistic regression's objective is {loss.item()}")
        loss.backward()
        return loss

    optimizer.step(objective)
    objective()
    assert weight.grad is not None and bias.grad is not None
    largest = max(weight.grad.abs().max(), bias.grad.abs().max())
    classifier = nn.Linear(
        x.shape[1], num_classes, device=x.device, dtype=torch.float64
    ).requires_grad_(False)  # fmt: skip
    classifier.weight.zero_()
    classifier.bias.fill_(-torch.inf)
    classifier.weight[present] = weight.detach()
    classifier.bias[present] = bias.detach()
    return classifier, bool(largest <= tolerance)
