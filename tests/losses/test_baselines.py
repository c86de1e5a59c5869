"""SimCLR, BYOL's and SimSiam's regression, Barlow Twins and VICReg against loops over equations."""

from __future__ import annotations

import functools

import pytest
import torch
from oracles import assert_same_value_and_gradient, cosine, draw_views
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.barlow_twins import BarlowTwinsLoss, barlow_twins_loss
from cwrgp.losses.contrastive import NTXentLoss, nt_xent_loss
from cwrgp.losses.regression import regression_loss
from cwrgp.losses.vicreg import VICRegLoss, vicreg_loss


def nt_xent_oracle(views: Tensor, temperature: float) -> Tensor:
    num_views, num_samples, _ = views.shape
    everything = [(v, n) for v in range(num_views) for n in range(num_samples)]
    terms = []
    for v, n in everything:
        for w in range(num_views):
            if w == v:
                continue
            numerator = torch.exp(cosine(views[v, n], views[w, n]) / temperature)
            denominator = sum(
                torch.exp(cosine(views[v, n], views[other]) / temperature)
                for other in everything
                if other != (v, n)
            )
            terms.append(-torch.log(numerator / denominator))
    return sum(terms) / len(terms)


def regression_oracle(predictions: Tensor, targets: Tensor) -> Tensor:
    terms = [
        2 - 2 * cosine(predictions[i, n], targets[j, n].detach())
        for i in range(len(predictions))
        for j in range(len(targets))
        if i != j
        for n in range(predictions.shape[1])
    ]
    return sum(terms) / len(terms)


def barlow_twins_oracle(views: Tensor, off_diagonal: float, scale: float, eps: float) -> Tensor:
    num_views, num_samples, num_channels = views.shape
    pairs = []
    for a in range(num_views):
        for b in range(a + 1, num_views):
            total = torch.zeros((), dtype=views.dtype)
            for i in range(num_channels):
                for j in range(num_channels):
                    x, y = views[a, :, i], views[b, :, j]
                    x = (x - x.mean()) / (x.var(correction=0) + eps) ** 0.5
                    y = (y - y.mean()) / (y.var(correction=0) + eps) ** 0.5
                    c = sum(x[n] * y[n] for n in range(num_samples)) / num_samples
                    total = total + ((1 - c) ** 2 if i == j else off_diagonal * c**2)
            pairs.append(total)
    return scale * sum(pairs) / len(pairs)


def vicreg_oracle(views: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    num_views, num_samples, num_channels = views.shape

    def v(z: Tensor) -> Tensor:
        hinges = [F.relu(1 - (z[:, j].var() + 1e-4) ** 0.5) for j in range(num_channels)]
        return sum(hinges) / num_channels

    def c(z: Tensor) -> Tensor:
        h = [row - sum(z) / num_samples for row in z]
        matrix = sum(torch.outer(row, row) for row in h) / (num_samples - 1)
        return (matrix**2)[~torch.eye(num_channels, dtype=torch.bool)].sum() / num_channels

    # The two-view form of the authors' code for every pair, then the mean over pairs.
    terms = []
    for a in range(num_views):
        for b in range(a + 1, num_views):
            s = ((views[a] - views[b]) ** 2).sum() / (num_samples * num_channels)
            terms.append(
                invariance * s
                + variance * (v(views[a]) + v(views[b])) / 2
                + covariance * (c(views[a]) + c(views[b]))
            )
    return sum(terms) / len(terms)


@pytest.mark.parametrize("num_views", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_the_oracle(num_views, temperature):
    assert_same_value_and_gradient(
        functools.partial(nt_xent_loss, temperature=temperature),
        functools.partial(nt_xent_oracle, temperature=temperature),
        draw_views(num_views, 5, 7),
    )


def test_nt_xent_of_two_views_is_a_cross_entropy():
    views = draw_views(2, 6, 5).detach()
    z = F.normalize(views.flatten(0, 1), dim=-1)
    logits = (z @ z.T / 0.2).fill_diagonal_(-torch.inf)
    target = torch.arange(12).roll(6)
    torch.testing.assert_close(
        nt_xent_loss(views, temperature=0.2), F.cross_entropy(logits, target)
    )


def test_nt_xent_of_equal_embeddings_is_the_log_of_their_number():
    loss = nt_xent_loss(torch.ones(3, 4, 2, dtype=torch.float64))
    torch.testing.assert_close(loss, torch.tensor(3 * 4 - 1.0, dtype=torch.float64).log())


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_the_regression_equals_the_oracle_and_spares_its_targets(num_views):
    targets = draw_views(num_views, 5, 7, seed=1)
    assert_same_value_and_gradient(
        lambda views: regression_loss(views, targets),
        lambda views: regression_oracle(views, targets),
        draw_views(num_views, 5, 7),
    )
    regression_loss(draw_views(num_views, 5, 7), targets).backward()
    assert targets.grad is None


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_barlow_twins_equals_the_oracle(num_views):
    arguments = {"off_diagonal": 0.0051, "scale": 0.3, "eps": 1e-5}
    assert_same_value_and_gradient(
        lambda views: sum(barlow_twins_loss(views, **arguments).values()),
        functools.partial(barlow_twins_oracle, **arguments),
        draw_views(num_views, 9, 4),
    )


@pytest.mark.parametrize(("num_samples", "num_channels"), [(40, 4), (5, 32)])
def test_barlow_twins_averages_over_the_samples_not_over_the_channels(num_samples, num_channels):
    # Equal views correlate to 1 with themselves, whatever the shape: nothing on the diagonal.
    h = torch.randn(num_samples, num_channels, dtype=torch.float64)
    loss = barlow_twins_loss(torch.stack([h, h]), eps=0.0)["loss_invariance"]
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_vicreg_equals_the_oracle(num_views):
    arguments = {"invariance": 25.0, "variance": 20.0, "covariance": 1.5}
    views = (0.8 * draw_views(num_views, 9, 4).detach()).requires_grad_()
    std = views.detach().std(1)
    assert (std < 1).any() and (std > 1).any()  # both sides of the hinge
    assert_same_value_and_gradient(
        functools.partial(vicreg_loss, **arguments),
        functools.partial(vicreg_oracle, **arguments),
        views,
    )


def test_vicreg_of_collapsed_views_is_the_hinge():
    loss = vicreg_loss(torch.zeros(2, 8, 4, dtype=torch.float64), variance=3.0)
    torch.testing.assert_close(loss, torch.tensor(3 * (1 - 0.01), dtype=torch.float64))


@pytest.mark.parametrize(
    "module",
    [
        NTXentLoss(0.2),
        lambda views: BarlowTwinsLoss(0.01, 0.5)(views)["loss_invariance"],
        lambda views: BarlowTwinsLoss(0.01, 0.5)(views)["loss_redundancy"],
        VICRegLoss(1, 2, 3),
    ],
)
def test_half_precision_under_autocast_is_computed_in_fp32(module):
    views = draw_views(2, 8, 16).detach().bfloat16()
    expected = module(views.double())
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(views)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def test_modules_pass_their_arguments_on():
    views = draw_views(3, 8, 5).detach()
    assert NTXentLoss(0.2)(views) == nt_xent_loss(views, temperature=0.2)
    assert BarlowTwinsLoss(0.01, 0.5)(views) == barlow_twins_loss(
        views, off_diagonal=0.01, scale=0.5
    )
    assert VICRegLoss(1, 2, 3)(views) == vicreg_loss(views, invariance=1, variance=2, covariance=3)


@pytest.mark.parametrize(
    "loss", [nt_xent_loss, barlow_twins_loss, vicreg_loss, lambda x: regression_loss(x, x)]
)
def test_a_single_view_is_refused(loss):
    with pytest.raises(
        ValueError, match=r"needs two views or more, all \(B, D\), got \[\(4, 3\)\]"
    ):
        loss(torch.ones(1, 4, 3))


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="^temperature 0 is not positive"):
        NTXentLoss(0)
