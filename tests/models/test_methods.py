"""Every method as the configuration builds it: gradients, momentum networks, hooks, state."""

from __future__ import annotations

import copy

import pytest
import torch
from method_configs import (
    BATCH,
    MOMENTUM,
    NAMES,
    Linear,
    draw_doubles,
    draw_images,
    is_momentum,
    make_cfg,
    total,
)
from torch import nn

from cwrgp.builders.methods import build_method
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.models.heads import build_predictor, build_projector
from cwrgp.models.methods import SimSiam
from cwrgp.models.momentum_methods import BYOL
from cwrgp.whitening import smallest_eigenvalue

# The methods whose loss has two parts.
LOSSES = {
    "intl": ["loss_intl", "loss_trace"],
    "intl with momentum": ["loss_intl", "loss_trace"],
    "barlow_twins": ["loss_invariance", "loss_redundancy"],
}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_trained_gets_a_gradient_and_no_momentum_network_does(name):
    method = build_method(make_cfg(name)).train()
    sizes = (32, 32, 16)  # a third view, of another size
    output = method(draw_images(*sizes))
    assert list(output.losses) == LOSSES.get(name, [f"loss_{name}"])
    views = len(sizes) - (name == "intl with momentum")  # view 0 is the momentum network's
    assert output.embeddings.shape[:2] == (views, BATCH) and not output.embeddings.requires_grad
    sum(output.losses.values()).backward()
    networks = {key.split(".")[0] for key, _ in method.named_parameters()}
    extra = {"predictor"} if name in ("byol", "simsiam") else set()
    extra |= {"momentum_encoder", "momentum_projector"} if name in MOMENTUM else set()
    assert networks == {"encoder", "projector"} | extra
    for key, parameter in method.named_parameters():
        assert parameter.requires_grad != is_momentum(key), key
        if is_momentum(key):
            assert parameter.grad is None, key
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    assert method.encoder.bn1.weight.grad.norm() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_features_are_the_encoder_s_for_the_first_embedded_view(name):
    method, images = build_method(make_cfg(name)).train(), draw_images(32, 32, 32)
    encoder = copy.deepcopy(method.encoder)
    features = method(images).features
    expected = encoder(images[1 if name == "intl with momentum" else 0])
    assert not features.requires_grad
    torch.testing.assert_close(features, expected.detach())


@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_round(name):
    method = build_method(make_cfg(name)).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(2):
        method.set_progress(step=step, total_steps=2, steps_per_epoch=1)
        optimizer.zero_grad()
        total(method, draw_images(16, 16, seed=step)).backward()
        optimizer.step()
        method.update_target()
    other = build_method(make_cfg(name, "SEED", 1)).train()
    views = draw_images(16, 16, seed=5)
    for m in (method, other):
        m.set_progress(step=1, total_steps=4, steps_per_epoch=1)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    losses = []
    for m in (method, other):
        torch.manual_seed(0)  # of the sub-batches
        losses.append(total(m, views))
        m.update_target()
    assert losses[0] == losses[1]
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_gives_fp32_losses(name):
    method = build_method(make_cfg(name)).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = method(draw_images(16, 16))
    assert {loss.dtype for loss in output.losses.values()} == {torch.float32}
    assert output.embeddings.dtype == torch.float32
    assert all(torch.isfinite(loss) for loss in output.losses.values())


def cosines(a, b):
    return nn.functional.cosine_similarity(a, b, dim=-1).mean()


@pytest.mark.parametrize("num_views", [2, 3])
def test_simsiam_and_byol_predict_every_other_view(num_views):
    torch.manual_seed(0)
    encoder, projector, predictor = Linear(), nn.Identity(), nn.Linear(6, 6).double()
    views = draw_doubles(num_views)
    simsiam = SimSiam(encoder, projector, predictor)
    byol = BYOL(encoder, projector, predictor, 0.99)
    with torch.no_grad():
        byol.momentum_encoder.layer.weight.mul_(0.5).add_(0.1)
    online = [encoder(view) for view in views]
    slow = [view.flatten(1) @ (0.5 * encoder.layer.weight + 0.1).T for view in views]
    for method, targets, name in ((simsiam, online, "simsiam"), (byol, slow, "byol")):
        pairs = [(i, j) for i in range(num_views) for j in range(num_views) if i != j]
        cosine = sum(cosines(predictor(online[i]), targets[j].detach()) for i, j in pairs)
        # BYOL, equation 2: 2 - 2 cos. SimSiam, equations 1 and 2: the mean of -cos; here plus 1.
        expected = (2 if name == "byol" else 1) * (1 - cosine / len(pairs))
        loss = method(views).losses[f"loss_{name}"]
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        parameters = [encoder.layer.weight, predictor.weight]
        got = torch.autograd.grad(loss, parameters)
        wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_must_be_equal_whatever_the_method(name):
    with pytest.raises(ValueError, match="16 does not divide among 1 processes with SOLVER.ACC"):
        build_method(make_cfg(name, "SOLVER.ACCUMULATE", 3))


def test_the_covariance_penalty_ends_where_its_epochs_do():
    opts = ("METHOD.CWRGP.COVARIANCE_WEIGHT", 0.5, "METHOD.CWRGP.COVARIANCE_EPOCHS", 2)
    method = build_method(make_cfg("cwrgp", *opts))
    without = build_method(make_cfg("cwrgp")).loss
    views = torch.randn(2, BATCH, 64)

    def penalised(step):
        method.set_progress(step=step, total_steps=40, steps_per_epoch=10)
        torch.manual_seed(0)
        loss = method.loss(views)
        torch.manual_seed(0)
        return bool(loss > without(views) + 1e-3)

    assert [penalised(step) for step in (0, 19, 20, 39, 5)] == [True, True, False, False, True]
    never = CWRGPLoss(2, 8, covariance_weight=0.5)
    never.set_progress(step=10**6, total_steps=10**6, steps_per_epoch=1)
    assert never.current_weight == 0.5


def test_the_smallest_eigenvalue_is_that_of_the_loss():
    views = torch.randn(2, BATCH, 64)
    method = build_method(make_cfg("cwrgp"))
    expected = smallest_eigenvalue(views.unflatten(1, (2, 8)), num_groups=4)
    assert method.smallest_eigenvalue(views) == expected > 0
    assert build_method(make_cfg("wmse")).smallest_eigenvalue(views[..., :8]) > 0
    for name in ("plain", "simclr", "byol", "intl"):
        assert build_method(make_cfg(name)).smallest_eigenvalue(views) is None


def test_heads_have_the_bias_and_the_batch_norm_asked_for():
    head = build_projector(8, hidden_features=16, out_features=4, hidden_bias=False, last_bn=True)
    assert [type(layer).__name__ for layer in head][-2:] == ["Linear", "BatchNorm1d"]
    assert head[0].bias is None and head[3].bias is None and head[4].weight is None
    head = build_projector(8, hidden_features=16, out_features=4, hidden_bias=False)
    assert head[0].bias is None and head[3].bias is not None
    predictor = build_predictor(8, hidden_features=2)
    assert predictor(torch.randn(4, 8)).shape == (4, 8) and predictor[0].out_features == 2
    method = build_method(
        make_cfg("simsiam", "MODEL.PROJECTOR.LAST_BN", True, "MODEL.PROJECTOR.HIDDEN_BIAS", False)
    )
    z = method(draw_images(16, 16)).embeddings
    torch.testing.assert_close(z.mean(1), torch.zeros(2, 64), rtol=0, atol=1e-5)
    assert method.projector[0].bias is None and method.predictor[0].bias is None


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        ("byol", ("METHOD.EMA", 0.0), "METHOD.EMA 0 gives byol no momentum network"),
        ("intl", ("SOLVER.BATCH_SIZE", 4), "METHOD.INTL: a global batch of 4 gives INTL's"),
        (
            "wmse",
            ("METHOD.WHITENING.SUBBATCH_SIZE", 5),
            "METHOD.WHITENING: a batch of 16 .* of 2, 4, 8, 16 would",
        ),
        (
            "wmse",
            ("MODEL.PROJECTOR.OUT", 32),
            "METHOD.WHITENING: batch whitening of 16 samples x 32",
        ),
        (
            "zca_cw",
            ("MODEL.PROJECTOR.OUT", 16),
            "METHOD.WHITENING: channel whitening of 16 samples",
        ),
        ("cwrgp", ("METHOD.CWRGP.NUM_GROUPS", 5), "METHOD.CWRGP: 64 channels do not divide into 5"),
        ("cwrgp", ("METHOD.CWRGP.EPS", 1.0), r"METHOD.CWRGP.EPS 1.0 is outside \[0, 1\)"),
        ("simclr", ("METHOD.SIMCLR.TEMPERATURE", 0.0), "METHOD.SIMCLR.TEMPERATURE 0.0 is not"),
        ("cwrgp", ("MODEL.ARCH", "resnet20"), "MODEL.ARCH 'resnet20' is unknown; choose one of"),
        ("byol", ("MODEL.PROJECTOR.LAYERS", 0), "MODEL.PROJECTOR: num_layers 0 is below 1"),
    ],
)
def test_values_that_cannot_work_are_refused(name, opts, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build_method(make_cfg(name, *opts))
