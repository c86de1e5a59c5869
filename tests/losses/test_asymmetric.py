"""A symmetric whitening loss is two losses with whitened targets that get no gradient."""

from __future__ import annotations

import functools

import pytest
import torch
from oracles import draw_views

from cwrgp.losses.asymmetric import asymmetric_losses
from cwrgp.whitening import whiten


@pytest.mark.parametrize(
    "whitening",
    [
        functools.partial(whiten, axis="channel", num_groups=2, permutation=torch.randperm(24)),
        functools.partial(whiten, axis="batch", method="cholesky", num_groups=8),
        lambda z: z,
    ],
)
def test_both_terms_have_the_value_and_together_the_gradient_of_the_symmetric_loss(whitening):
    views = draw_views(2, 8, 24)
    first, second = asymmetric_losses(*views, whitening)
    a, b = whitening(views[0]), whitening(views[1])
    symmetric = torch.linalg.matrix_norm(a - b).square() / 8
    torch.testing.assert_close(first, symmetric)
    torch.testing.assert_close(second, symmetric)
    (expected,) = torch.autograd.grad(symmetric, views)
    (of_first,) = torch.autograd.grad(first, views, retain_graph=True)
    (of_second,) = torch.autograd.grad(second, views)
    assert (of_first[1] == 0).all() and (of_second[0] == 0).all() and expected.norm() > 1e-3
    torch.testing.assert_close(of_first + of_second, expected)


def test_sub_batches_have_a_value_each():
    views = draw_views(2, 12, 24).detach().unflatten(1, (3, 4))
    whitening = functools.partial(whiten, axis="channel")
    for batched, k in zip(asymmetric_losses(*views, whitening), range(2), strict=True):
        alone = [asymmetric_losses(*views[:, i], whitening)[k] for i in range(3)]
        torch.testing.assert_close(batched, torch.stack(alone))
