"""Every key of METHOD reaches the formula, and every projector sees what its paper gives it."""

from __future__ import annotations

import pytest
import torch
from method_configs import BATCH, NAMES, draw_images, make_cfg
from torch import Tensor

from cwrgp.builders.methods import build_method
from cwrgp.losses.barlow_twins import barlow_twins_loss
from cwrgp.losses.batch_whitening import whitening_loss
from cwrgp.losses.contrastive import nt_xent_loss
from cwrgp.losses.cwrgp import cwrgp_loss
from cwrgp.losses.intl import intl_loss
from cwrgp.losses.vicreg import vicreg_loss

# Of the whole batch as one sub-batch, so that the split makes no difference.
WHITENING = {
    "wmse": ("batch", "cholesky"),
    "zca_cw": ("channel", "zca"),
    "plain": ("batch", "none"),
    "bn": ("batch", "standardize"),
    "pca": ("batch", "pca"),
    "zca_bw": ("batch", "zca"),
}


def embeddings(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, BATCH, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", WHITENING)
def test_a_whitening_loss_is_its_axis_and_matrix(name):
    cfg = make_cfg(name, "METHOD.WHITENING.EPS", 0.2, "METHOD.WHITENING.NUM_DRAWS", 3)
    method, z = build_method(cfg), embeddings(cfg.MODEL.PROJECTOR.OUT)
    axis, matrix = WHITENING[name]
    expected = whitening_loss(z, axis=axis, method=matrix, subbatch_size=BATCH, eps=0.2)
    torch.testing.assert_close(method.loss(z), expected, rtol=1e-9, atol=1e-12)
    assert method.loss.num_draws == 3
    others = [
        whitening_loss(z, axis=axis, method=other, subbatch_size=BATCH, eps=0.2)
        for other in {"cholesky", "zca", "pca", "standardize", "none"} - {matrix}
    ]
    assert all(abs(other - expected) > 1e-6 for other in others)


def test_cwrgp_has_every_value_of_its_section():
    opts = {"NUM_GROUPS": 2, "SUBBATCH_SIZE": BATCH, "NORMALIZE": False, "EPS": 0.2}
    opts |= {"COVARIANCE_WEIGHT": 0.5, "COVARIANCE_EPOCHS": 7, "RANDOM_PARTITION": False}
    pairs = [word for key, value in opts.items() for word in (f"METHOD.CWRGP.{key}", value)]
    z = embeddings(64)
    loss = build_method(make_cfg("cwrgp", *pairs)).loss
    assert (loss.covariance_weight, loss.covariance_epochs, loss.num_draws) == (0.5, 7, 1)
    loss.current_weight = 0.0
    expected = cwrgp_loss(z, num_groups=2, subbatch_size=BATCH, normalize=False, eps=0.2)
    torch.testing.assert_close(loss(z), expected, rtol=1e-9, atol=1e-12)
    random = build_method(make_cfg("cwrgp", *pairs[:-1], True, "METHOD.CWRGP.NUM_DRAWS", 3)).loss
    assert random.num_draws == 3 and random(z) != random(z)


@pytest.mark.parametrize(
    ("name", "opts", "expected"),
    [
        ("simclr", ["SIMCLR.TEMPERATURE", 0.2], lambda z: nt_xent_loss(z, temperature=0.2)),
        (
            "barlow_twins",
            ["BARLOW_TWINS.OFF_DIAGONAL", 0.1, "BARLOW_TWINS.SCALE", 0.5],
            lambda z: barlow_twins_loss(z, off_diagonal=0.1, scale=0.5),
        ),
        (
            "vicreg",
            ["VICREG.INVARIANCE", 3.0, "VICREG.VARIANCE", 5.0, "VICREG.COVARIANCE", 7.0],
            lambda z: vicreg_loss(z, invariance=3, variance=5, covariance=7),
        ),
        (
            "intl",
            ["INTL.ITERATIONS", 3, "INTL.TRACE_WEIGHT", 0.5],
            lambda z: intl_loss(z, iterations=3, weight=0.5),
        ),
    ],
    ids=["simclr", "barlow_twins", "vicreg", "intl"],
)
def test_a_loss_has_the_values_of_its_section(name, opts, expected):
    pairs = [f"METHOD.{o}" if isinstance(o, str) else o for o in opts]
    z = embeddings(64)
    found = build_method(make_cfg(name, *pairs)).loss(z)
    torch.testing.assert_close(found, expected(z), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_projector_sees_all_views_at_once_or_one_after_the_other(name):
    method = build_method(make_cfg(name)).train()
    seen = {"projector": [], "momentum_projector": []}
    for network, sizes in seen.items():
        if hasattr(method, network):
            getattr(method, network).register_forward_pre_hook(
                lambda _, inputs, sizes=sizes: sizes.append(len(inputs[0]))
            )
    method(draw_images(32, 32, 32))
    one, together = [BATCH] * 3, [3 * BATCH]
    joint = name in ("cwrgp", "simclr", *WHITENING)
    expected = {"byol": (one, one), "intl with momentum": (one[:2], one[:1])}
    online, momentum = expected.get(name, (together if joint else one, []))
    assert seen == {"projector": online, "momentum_projector": momentum}


def test_networks_start_as_the_configuration_says():
    for zero in (True, False):
        cfg = make_cfg("cwrgp", "MODEL.ZERO_INIT_RESIDUAL", zero, "MODEL.STEM", "small")
        encoder = build_method(cfg).encoder
        assert bool((encoder.layer1[0].bn2.weight == 0).all()) == zero
        # nn.Conv2d's own initialisation: uniform up to 1 / sqrt(fan in), here of 3 x 3 x 3.
        assert encoder.conv1.weight.std().item() == pytest.approx(1 / 9, rel=0.05)
        assert encoder.conv1.weight.abs().max() <= 27**-0.5
