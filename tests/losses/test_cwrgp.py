"""CW-RGP's loss and gradient against an oracle written from the paper, and its identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.base import pair_loss
from cwrgp.losses.cwrgp import CWRGPLoss, covariance_penalty, cwrgp_loss
from cwrgp.whitening import whiten


def oracle(
    views: Tensor,
    *,
    num_groups: int,
    subbatch_size: int,
    split: Tensor,
    permutation: Tensor | None,
    normalize: bool,
    eps: float,
) -> Tensor:
    """Loops over draws, pairs of views, sub-batches, groups and samples; whitens through an SVD."""
    num_views, _, num_channels = views.shape
    size = num_channels // num_groups
    terms = []
    for k, order in enumerate(split):
        for s, members in enumerate(order.split(subbatch_size)):
            whitened = []
            for v in range(num_views):
                h = views[v, members]
                h = h - h.mean(1, keepdim=True)
                z = torch.zeros_like(h)
                channels = torch.arange(num_channels)
                if permutation is not None:
                    channels = permutation[v, k, s]
                for g in range(num_groups):
                    group = channels[g * size : (g + 1) * size]
                    x = h[:, group]
                    covariance = (1 - eps) * (x @ x.T) / (size - 1) + eps * torch.eye(
                        len(x), dtype=x.dtype
                    )
                    u, values, vh = torch.linalg.svd(covariance)
                    z = z.index_copy(1, group, u @ torch.diag(values**-0.5) @ vh @ x)
                whitened.append(z)
            for a in range(num_views):
                for b in range(a + 1, num_views):
                    for za, zb in zip(whitened[a], whitened[b], strict=True):
                        if normalize:
                            terms.append(2 - 2 * F.cosine_similarity(za, zb, dim=0))
                        else:
                            terms.append(((za - zb) ** 2).mean())
    return sum(terms) / len(terms)


def draw(views: Tensor, num_draws: int, subbatch_size: int) -> tuple[Tensor, Tensor]:
    num_views, batch, channels = views.shape
    split = torch.rand(num_draws, batch).argsort(-1)
    shape = (num_views, num_draws, batch // subbatch_size, channels)
    return split, torch.rand(shape).argsort(-1)


@pytest.mark.parametrize("random_partition", [False, True])
@pytest.mark.parametrize("num_views", [2, 3, 4])
@pytest.mark.parametrize(
    ("subbatch_size", "num_draws", "normalize", "eps"),
    [(12, 1, True, 0.0), (4, 1, True, 0.0), (6, 3, False, 0.0), (4, 2, True, 0.05)],
)
def test_value_and_gradient_equal_the_oracle(
    num_views, subbatch_size, num_draws, normalize, eps, random_partition
):
    torch.manual_seed(1)
    views = torch.randn(num_views, 12, 64, dtype=torch.float64, requires_grad=True)
    split, permutation = draw(views, num_draws, subbatch_size)
    arguments = {
        "num_groups": 4,
        "subbatch_size": subbatch_size,
        "split": split,
        "permutation": permutation if random_partition else None,
        "normalize": normalize,
        "eps": eps,
    }
    loss, expected = cwrgp_loss(views, **arguments), oracle(views, **arguments)
    assert abs(loss - expected) < 1e-9 * abs(expected)
    (grad,) = torch.autograd.grad(loss, views)
    (expected_grad,) = torch.autograd.grad(expected, views)
    assert (grad - expected_grad).norm() < 1e-9 * expected_grad.norm()

    single = views.detach().float().requires_grad_()
    loss32 = cwrgp_loss(single, **arguments)
    (grad32,) = torch.autograd.grad(loss32, single)
    assert abs(loss32 - expected) < 1e-4 * abs(expected)
    assert (grad32 - expected_grad).norm() < 1e-4 * expected_grad.norm()


def test_the_module_is_the_function_under_a_generator():
    views = torch.randn(3, 12, 64, dtype=torch.float64)
    module = CWRGPLoss(num_groups=4, subbatch_size=4, num_draws=2, covariance_weight=0.1)
    loss = module(views, generator=torch.Generator().manual_seed(5))
    assert loss == module(list(views), generator=torch.Generator().manual_seed(5))
    assert loss != module(views, generator=torch.Generator().manual_seed(6))

    generator = torch.Generator().manual_seed(5)
    split = torch.rand(2, 12, generator=generator).argsort(-1)
    permutation = torch.rand(3, 2, 3, 64, generator=generator).argsort(-1)
    expected = oracle(
        views,
        num_groups=4,
        subbatch_size=4,
        split=split,
        permutation=permutation,
        normalize=True,
        eps=0.0,
    )
    subbatches = [members for order in split for members in order.split(4)]
    penalty = sum(covariance_penalty(views[:, members]) for members in subbatches) / len(subbatches)
    torch.testing.assert_close(loss, expected + 0.1 * penalty, rtol=1e-9, atol=0)


def test_without_random_partition_a_single_subbatch_is_deterministic():
    views = torch.randn(2, 8, 64, dtype=torch.float64)
    module = CWRGPLoss(num_groups=2, subbatch_size=8, random_partition=False)
    torch.testing.assert_close(
        module(views), cwrgp_loss(views, num_groups=2, subbatch_size=8), rtol=1e-12, atol=0
    )


def test_equal_views_without_random_partition_have_no_loss():
    h = torch.randn(8, 64, dtype=torch.float64)
    loss = CWRGPLoss(num_groups=2, subbatch_size=4, random_partition=False)(torch.stack([h, h, h]))
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)


def test_the_loss_does_not_depend_on_the_scale_of_the_embedding():
    views = torch.randn(2, 8, 64, dtype=torch.float64)
    arguments = {"num_groups": 2, "subbatch_size": 8}
    torch.testing.assert_close(cwrgp_loss(views, **arguments), cwrgp_loss(7 * views, **arguments))


@pytest.mark.parametrize("num_views", [2, 3, 5])
def test_squared_error_of_pairs_equals_the_loop_over_pairs(num_views):
    views = torch.randn(num_views, 6, 10, dtype=torch.float64, requires_grad=True)
    loss = pair_loss(views, normalize=False)
    pairs = [F.mse_loss(views[a], views[b]) for a in range(num_views) for b in range(a)]
    expected = torch.stack(pairs).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(loss, views)
    (expected_grad,) = torch.autograd.grad(expected, views)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-14)


def test_the_cosine_form_is_that_of_explicitly_normalised_embeddings():
    views = torch.randn(3, 8, 64, dtype=torch.float64, requires_grad=True)
    loss = cwrgp_loss(views, num_groups=4, subbatch_size=8)
    expected = pair_loss(whiten(views, num_groups=4))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    (grad,) = torch.autograd.grad(loss, views)
    (expected_grad,) = torch.autograd.grad(expected, views)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-13)


def test_symmetric_loss_is_two_asymmetric_ones_with_whitened_targets():
    # The paper's analysis (section 3): same gradient, up to the factor 2 that the value has, too.
    torch.manual_seed(0)
    views = torch.randn(2, 8, 64, dtype=torch.float64, requires_grad=True)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(-1).mean()

    z1, z2 = whiten(views, num_groups=2)
    symmetric = distance(z1, z2)
    asymmetric = distance(z1, z2.detach()) + distance(z1.detach(), z2)
    torch.testing.assert_close(2 * symmetric, asymmetric)
    torch.testing.assert_close(symmetric, pair_loss(torch.stack([z1, z2])))
    (grad,) = torch.autograd.grad(symmetric, views, retain_graph=True)
    (expected,) = torch.autograd.grad(asymmetric, views)
    torch.testing.assert_close(grad, expected)


def test_every_view_receives_a_gradient():
    views = [torch.randn(8, 64, requires_grad=True) for _ in range(4)]
    CWRGPLoss(num_groups=2, subbatch_size=8)(views).backward()
    assert all(view.grad.norm() > 1e-4 for view in views)


def test_bf16_embeddings_under_autocast_are_whitened_in_fp32():
    views = torch.randn(2, 16, 64).bfloat16()
    module = CWRGPLoss(num_groups=2, subbatch_size=16, covariance_weight=0.1)
    expected = module(views.float(), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(views, generator=torch.Generator().manual_seed(0))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_covariance_penalty_equals_torch_cov():
    torch.manual_seed(0)
    views = torch.randn(3, 6, 10, dtype=torch.float64, requires_grad=True)
    expected = sum(
        (torch.cov(view) ** 2)[~torch.eye(6, dtype=torch.bool)].sum() / 6 for view in views
    )
    torch.testing.assert_close(covariance_penalty(views), expected)
    (grad,) = torch.autograd.grad(covariance_penalty(views), views)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, views)[0])


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"num_groups": 2, "subbatch_size": 5}, (2, 12, 64), "sub-batches of 2, 3, 4, 6, 12 would"),
        ({"num_groups": 8, "subbatch_size": 12}, (2, 12, 64), "or eps > 0"),
        ({"num_groups": 2, "subbatch_size": 4}, (1, 12, 64), "needs two views"),
        ({"num_groups": 2, "subbatch_size": 4}, (12, 64), "needs two views"),
    ],
)
def test_shapes_that_cannot_work_are_refused(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        CWRGPLoss(**arguments)(torch.randn(shape))
    with pytest.raises(ValueError, match=r"all \(B, D\), got \[\(12, 64\), \(6, 64\)\]"):
        CWRGPLoss(num_groups=2, subbatch_size=6)([torch.ones(12, 64), torch.ones(6, 64)])
    with pytest.raises(ValueError, match="needs two views"):
        CWRGPLoss(num_groups=2, subbatch_size=6)([])
    with pytest.raises(ValueError, match="a batch of 0 sample"):
        CWRGPLoss(num_groups=2, subbatch_size=6)(torch.ones(2, 0, 64))
    with pytest.raises(ValueError, match="num_draws 0 is below 1"):
        CWRGPLoss(num_groups=2, subbatch_size=4, num_draws=0)


def test_losses_are_in_fp32_whatever_is_around_them_and_however_they_are_called():
    views = torch.randn(2, 8, 32).bfloat16()
    expected = cwrgp_loss(views.float(), num_groups=2, subbatch_size=8)
    with torch.autocast("cpu", torch.bfloat16):
        found = cwrgp_loss(views=views, num_groups=2, subbatch_size=8)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
