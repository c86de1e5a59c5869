"""What a loss says its value is for unrelated views, against the mean over random embeddings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cwrgp.losses.barlow_twins import BarlowTwinsLoss
from cwrgp.losses.base import Loss
from cwrgp.losses.batch_whitening import WhiteningLoss, WMSELoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.losses.intl import INTLLoss
from cwrgp.losses.regression import regression_loss
from cwrgp.losses.vicreg import VICRegLoss
from cwrgp.models.methods import JointEmbedding, SimSiam
from cwrgp.models.momentum_methods import BYOL, MomentumINTL


def mean_and_error(loss, shape, repetitions=200):
    """Monte Carlo mean of the loss over normal embeddings, and the standard error of that mean."""
    torch.manual_seed(0)
    values = [loss(torch.randn(shape, dtype=torch.float64)) for _ in range(repetitions)]
    values = torch.stack(values)
    return values.mean().item(), values.std().item() / math.sqrt(repetitions)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (CWRGPLoss(4, 8), (2, 16, 64)),
        (CWRGPLoss(2, 8, num_draws=2, eps=0.1), (4, 16, 64)),
        (WMSELoss(16), (2, 16, 4)),
        (WhiteningLoss("batch", "pca"), (2, 16, 4)),
        (WhiteningLoss("channel", "zca"), (3, 8, 32)),
        (WhiteningLoss("batch", "standardize"), (2, 16, 4)),
        (WhiteningLoss("batch", "none"), (2, 16, 4)),
    ],
)
def test_the_cosine_of_unrelated_views_is_zero_on_average(loss, shape):
    mean, error = mean_and_error(loss, shape)
    assert error < 0.03
    assert loss.value_for_unrelated(shape[1], num_views=shape[0]) == 2
    assert abs(mean - 2) < 4 * error


@pytest.mark.parametrize("num_views", [2, 3])
def test_a_contrastive_loss_of_unrelated_views_is_a_uniform_choice(num_views):
    loss = NTXentLoss(0.5)
    expected = math.log(num_views * 16 - 1)
    assert loss.value_for_unrelated(16, num_views=num_views) == expected
    for width in (512, 2048):  # the excess of cosines that do not vanish falls with the width
        mean, error = mean_and_error(loss, (num_views, 16, width), 50)
        assert 0 < mean - expected < 1 / (2 * width * 0.5**2) + 4 * error


@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        BarlowTwinsLoss(),
        VICRegLoss(),
        CWRGPLoss(4, 8, normalize=False),
        CWRGPLoss(4, 8, covariance_weight=0.1),
        WMSELoss(normalize=False),
    ],
)
def test_there_is_no_value_where_scale_or_width_matter(loss):
    assert loss.value_for_unrelated(64) is None


@pytest.mark.parametrize(("num_views", "scale"), [(2, 1.0), (3, 0.1)])
def test_the_value_of_barlow_twins_depends_on_the_width(num_views, scale):
    """And on nothing else: channels may be correlated and of any scale, in the part that compares
    views."""
    torch.manual_seed(1)
    loss, mixing = BarlowTwinsLoss(0.1, scale), 10 * torch.randn(12, 12, dtype=torch.float64)
    expected = loss.value_for_unrelated(16, num_views=num_views, num_channels=12)
    assert expected is not None
    part = "loss_invariance"
    mean, error = mean_and_error(lambda x: loss(x @ mixing + 3)[part], (num_views, 16, 12), 1000)
    assert abs(mean - expected) < 4 * error < 0.03 * expected
    method = JointEmbedding(nn.Identity(), nn.Identity(), loss, "barlow_twins")
    assert method.chance_losses(16, num_views=num_views, num_channels=12) == {part: expected}


def test_equal_views_of_few_dimensions_are_more_redundant_than_unrelated_ones():
    """So the redundancy says nothing about what was learnt."""
    torch.manual_seed(2)
    narrow = torch.randn(64, 4) @ torch.randn(4, 512)
    equal, unrelated = (
        BarlowTwinsLoss()(x) for x in (narrow.expand(2, -1, -1), torch.randn(2, 64, 512))
    )
    assert equal["loss_redundancy"] > 5 * unrelated["loss_redundancy"]
    assert equal["loss_invariance"] < 1e-3 * unrelated["loss_invariance"]


@pytest.mark.parametrize(("num_views", "temperature"), [(2, 0.5), (3, 0.1)])
def test_a_contrastive_loss_of_equal_views_is_not_zero(num_views, temperature):
    loss = NTXentLoss(temperature)
    views = torch.eye(16, dtype=torch.float64).expand(num_views, -1, -1)
    expected = loss.value_for_aligned(16, num_views=num_views)
    assert float(loss(views)) == pytest.approx(expected, rel=1e-12)
    method = JointEmbedding(nn.Identity(), nn.Identity(), loss, "simclr")
    assert method.aligned_loss(16, num_views=num_views) == expected
    assert JointEmbedding(nn.Identity(), nn.Identity(), CWRGPLoss(1, 4)).aligned_loss(16) == 0


def test_unrelated_views_have_a_lower_vicreg_loss_at_a_smaller_scale():
    """So there is no value that a run which learns nothing would stay at."""
    loss, x = VICRegLoss(), torch.randn(2, 64, 16)
    assert loss(0.3 * x) < loss(x) and loss(0.3 * x) < loss(0.01 * x)
    assert loss.value_for_unrelated(64, num_channels=16) is None


def test_the_value_is_back_once_the_covariance_penalty_has_ended():
    loss = CWRGPLoss(4, 8, covariance_weight=0.1, covariance_epochs=2)
    loss.set_progress(step=19, total_steps=40, steps_per_epoch=10)
    assert loss.value_for_unrelated(64) is None
    loss.set_progress(step=20, total_steps=40, steps_per_epoch=10)
    assert loss.value_for_unrelated(64) == 2


def test_the_value_of_intl_is_that_of_the_part_that_compares_views():
    """Without and with a momentum network."""
    loss = INTLLoss()
    assert loss.value_for_unrelated(16) == 2
    mean, error = mean_and_error(lambda x: loss(x)["loss_intl"], (3, 16, 64))
    assert abs(mean - 2) < 4 * error < 0.1
    mean, error = mean_and_error(lambda x: loss(x[:2], x[2])["loss_intl"], (3, 16, 64))
    assert abs(mean - 2) < 4 * error < 0.1
    networks = nn.Identity(), nn.Identity()
    for method in (JointEmbedding(*networks, loss, "intl"), MomentumINTL(*networks, loss, 0.9)):
        assert method.chance_losses(16) == {"loss_intl": 2}


def test_a_method_has_the_value_of_its_loss():
    networks = nn.Identity(), nn.Identity()
    contrastive = JointEmbedding(*networks, NTXentLoss(), "simclr")
    assert contrastive.chance_losses(8, num_views=4) == {"loss_simclr": math.log(31)}
    assert JointEmbedding(*networks, VICRegLoss()).chance_losses(8) == {}

    def mean_of(method):
        def loss(views):
            return torch.stack(list(method(list(views)).losses.values())).sum()

        return mean_and_error(loss, (2, 16, 8))

    for method, expected in (
        (BYOL(*networks, nn.Identity(), 0.9), 2),
        (SimSiam(*networks, nn.Identity()), 1),
        (JointEmbedding(*networks, CWRGPLoss(1, 4)), 2),
    ):
        mean, error = mean_of(method)
        (name,) = method.chance_losses(16)
        assert method.chance_losses(16) == {name: expected}
        assert name in method(list(torch.randn(2, 16, 8))).losses
        assert abs(mean - expected) < 4 * error < 0.1
    mean, error = mean_and_error(lambda x: regression_loss(x[0:2], x[2:4]), (4, 16, 8))
    assert abs(mean - 2) < 4 * error
