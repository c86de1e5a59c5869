"""W-MSE and the other whitening losses against loops and explicit matrices."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_same_value_and_gradient, cosine, draw_views
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.base import pair_loss
from cwrgp.losses.batch_whitening import WhiteningLoss, WMSELoss, standardize, whitening_loss


def covariance_of(x: Tensor) -> Tensor:
    """Of the rows of x as variables, (M, K) -> (M, M), x centred."""
    return sum(torch.outer(x[:, k], x[:, k]) for k in range(x.shape[1])) / (x.shape[1] - 1)


def transform(h: Tensor, axis: str, method: str, eps: float) -> Tensor:
    """One sub-batch (N, D)."""
    if method == "none":
        return h
    x = h if axis == "channel" else h.T  # variables are rows
    x = x - x.mean(1, keepdim=True)
    if method == "standardize":
        z = torch.stack([row / ((1 - eps) * row.var() + eps) ** 0.5 for row in x])
    else:
        s = (1 - eps) * covariance_of(x) + eps * torch.eye(len(x), dtype=x.dtype)
        if method == "cholesky":
            z = torch.linalg.inv(torch.linalg.cholesky(s)) @ x
        else:
            u, values, vh = torch.linalg.svd(s)
            z = (
                torch.diag(values**-0.5) @ vh @ x
                if method == "pca"
                else u @ torch.diag(values**-0.5) @ vh @ x
            )
    return z if axis == "channel" else z.T


def oracle(
    views: Tensor,
    *,
    axis: str,
    method: str,
    subbatch_size: int,
    split: Tensor,
    normalize: bool = True,
    eps: float = 0.0,
) -> Tensor:
    terms = []
    for order in split:
        for members in order.split(subbatch_size):
            z = [transform(view[members], axis, method, eps) for view in views]
            for a in range(len(z)):
                for b in range(a + 1, len(z)):
                    for x, y in zip(z[a], z[b], strict=True):
                        terms.append(2 - 2 * cosine(x, y) if normalize else F.mse_loss(x, y))
    return sum(terms) / len(terms)


CASES = [
    ("batch", "cholesky", 5),  # W-MSE
    ("batch", "zca", 5),
    ("batch", "standardize", 5),
    ("batch", "none", 5),
    ("channel", "zca", 40),  # CW-RGP with one group
]


@pytest.mark.parametrize(("axis", "method", "num_channels"), CASES)
@pytest.mark.parametrize(
    ("num_views", "subbatch_size", "num_draws", "normalize", "eps"),
    [(2, 24, 1, True, 0.0), (3, 12, 2, True, 0.1), (4, 12, 1, False, 0.0)],
)
def test_value_and_gradient_equal_the_oracle(
    axis, method, num_channels, num_views, subbatch_size, num_draws, normalize, eps
):
    arguments = {
        "axis": axis,
        "method": method,
        "subbatch_size": subbatch_size,
        "split": torch.rand(num_draws, 24).argsort(-1),
        "normalize": normalize,
        "eps": eps,
    }
    assert_same_value_and_gradient(
        lambda views: whitening_loss(views, **arguments),
        lambda views: oracle(views, **arguments),
        draw_views(num_views, 24, num_channels),
    )


def test_pca_equals_the_oracle_up_to_the_signs_of_the_axes():
    # The sign of an axis is free, in each view on its own: take those that fit.
    views = draw_views(2, 24, 4)
    loss = whitening_loss(views, axis="batch", method="pca", subbatch_size=24)
    za, zb = (transform(view, "batch", "pca", 0.0) for view in views)
    possible = torch.stack(
        [
            sum(2 - 2 * cosine(x, y * signs) for x, y in zip(za, zb, strict=True)) / 24
            for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=za.dtype)] * 4)
        ]
    )
    fitting = possible[(possible - loss).abs().argmin()]
    assert abs(fitting - loss) < 1e-9
    (gradient,) = torch.autograd.grad(loss, views)
    (expected,) = torch.autograd.grad(fitting, views)
    assert (gradient - expected).norm() < 1e-9 * expected.norm()


def test_wmse_whitens_the_batch_axis_not_the_channels(monkeypatch):
    views = draw_views(2, 32, 6).detach()
    whitened = []

    def watched(z: Tensor, *, normalize: bool) -> Tensor:
        whitened.append(z)
        return pair_loss(z, normalize=normalize)

    monkeypatch.setattr("cwrgp.losses.batch_whitening.pair_loss", watched)
    loss = WMSELoss(16)
    loss(views)
    for z in whitened[0].unflatten(1, (2, 16)).flatten(0, 1):  # each view's two sub-batches
        identity = torch.eye(6, dtype=z.dtype)
        torch.testing.assert_close(torch.cov(z.T), identity)  # channels are uncorrelated
        samples = torch.cov(z)
        assert (samples - torch.eye(16, dtype=z.dtype)).norm() > 1  # samples are not
    assert (loss.axis, loss.method) == ("batch", "cholesky")


def test_standardising_gives_each_channel_mean_0_and_variance_1():
    x = draw_views(1, 10, 4).detach()[0]
    expected = (x - x.mean(0)) / x.std(0)
    torch.testing.assert_close(standardize(x), expected)
    torch.testing.assert_close(standardize(x.T, axis="channel"), expected.T)
    # BatchNorm has the biased variance, a factor for all channels alike, which cosines do not see.
    biased = F.batch_norm(x, None, None, training=True, eps=1e-12)
    torch.testing.assert_close(expected * (10 / 9) ** 0.5, biased)


def test_the_module_is_the_function_under_a_generator():
    views = draw_views(3, 24, 5).detach()
    module = WMSELoss(12, num_draws=2, eps=0.1)
    loss = module(list(views), generator=torch.Generator().manual_seed(5))
    assert loss != module(views, generator=torch.Generator().manual_seed(6))
    split = torch.rand(2, 24, generator=torch.Generator().manual_seed(5)).argsort(-1)
    expected = oracle(
        views, axis="batch", method="cholesky", subbatch_size=12, split=split, eps=0.1
    )
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


def test_no_size_means_the_whole_batch():
    views = draw_views(2, 24, 5).detach()
    torch.testing.assert_close(WMSELoss()(views), WMSELoss(24)(views), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("axis", "method", "num_channels"), CASES)
def test_bf16_embeddings_under_autocast_are_whitened_in_fp32(axis, method, num_channels):
    views = draw_views(2, 16, num_channels).detach().bfloat16()
    module = WhiteningLoss(axis, method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(views)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), module(views.double()), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("axis", "method"), [("channel", "standardize"), ("batch", "zca")])
def test_the_module_hands_all_its_values_on(axis, method):
    views = draw_views(2, 12, 20).detach()
    module = WhiteningLoss(axis, method, normalize=False, eps=0.3)
    module.check(12, 20)  # 12 samples of 20 channels: eps alone makes it possible
    expected = whitening_loss(
        views, axis=axis, method=method, subbatch_size=12, normalize=False, eps=0.3
    )
    torch.testing.assert_close(module(views), expected, rtol=1e-9, atol=0)
    if method == "zca":
        torch.testing.assert_close(module.smallest_eigenvalue(views).item(), 0.3)


def test_the_smallest_eigenvalue_is_that_of_the_channels_covariance():
    views = draw_views(2, 24, 5).detach()
    covariances = [torch.cov(part.T) for view in views for part in view.split(12)]
    expected = min(torch.linalg.eigvalsh(c).min() for c in covariances)
    torch.testing.assert_close(WMSELoss(12).smallest_eigenvalue(views), expected)
    assert WhiteningLoss("batch", "none").smallest_eigenvalue(views) is None


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (WMSELoss(5), (2, 12, 4), "sub-batches of 2, 3, 4, 6, 12 would"),
        (WMSELoss(4), (2, 12, 4), "batch whitening of 4 samples x 4 channels .* or eps > 0"),
        (WhiteningLoss("channel", "zca"), (2, 12, 12), "channel whitening .* or eps > 0"),
        (WMSELoss(4), (1, 12, 2), "WMSELoss needs two views"),
        (WhiteningLoss("batch", "none"), (2, 1, 4), "a batch of 1 sample"),
    ],
)
def test_shapes_that_cannot_be_whitened_are_refused(module, shape, message):
    with pytest.raises(ValueError, match=message):
        module(torch.randn(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "qr"}, r"method 'qr' is unknown; choose one of \['cholesky', 'zca'"),
        ({"axis": "rows"}, "axis 'rows' is unknown; choose 'channel' or 'batch'"),
        ({"num_draws": 0}, "num_draws 0 is below 1"),
        ({"eps": 1.5}, r"eps 1.5 is outside \[0, 1\)"),
    ],
)
@pytest.mark.parametrize("method", ["zca", "standardize"])
def test_arguments_out_of_range_are_refused(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        WhiteningLoss(**{"axis": "batch", "method": method} | arguments)
