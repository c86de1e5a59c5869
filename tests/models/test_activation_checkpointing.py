"""Activation checkpointing: the same results, statistics and names, in less memory."""

from __future__ import annotations

import json

import pytest
import torch
from method_configs import BATCH, MOMENTUM, draw_images, make_cfg, total
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from two_processes import in_two_processes

from cwrgp.builders.methods import build_method
from cwrgp.models.activation_checkpointing import recomputed
from cwrgp.models.batch_norm import synchronize_batch_norm
from cwrgp.models.encoders import build_encoder

KEY = "MODEL.ACTIVATION_CHECKPOINTING"


def one_step(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Gradients, and the state after the backward pass."""
    loss.backward()
    grads = {f"grad {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
    assert grads
    return {**grads, **module.state_dict(), "loss": loss.detach()}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_weights_names_gradients_and_statistics_are_equal_bit_for_bit(arch):
    results = []
    for on in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder(arch, zero_init_residual=False, activation_checkpointing=on).train()
        features = torch.cat([encoder(view) for view in draw_images(64, 48)])  # two forward passes
        results.append(one_step(encoder, features.square().mean()))
    without, with_it = results
    assert [*without] == [*with_it]
    assert without["layer1.0.bn1.num_batches_tracked"] == 2
    for name, expected in without.items():
        assert torch.equal(with_it[name], expected), name


@pytest.mark.parametrize("name", ["cwrgp", "simsiam", *MOMENTUM])
def test_a_method_takes_the_same_steps(name):
    states = []
    for on in (False, True):
        method = build_method(make_cfg(name, KEY, on)).train()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
        for step in range(2):
            torch.manual_seed(step)  # of the loss's draws
            method.set_progress(step=step, total_steps=4, steps_per_epoch=2)
            optimizer.zero_grad()
            total(method, draw_images(32, 32, seed=step)).backward()
            optimizer.step()
            method.update_target()
        states.append(method.state_dict())
    assert [*states[0]] == [*states[1]]
    for key, expected in states[0].items():
        assert torch.equal(states[1][key], expected), key


def test_bf16_autocast_is_equal_to_its_rounding():
    results = []
    for on in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder("resnet18", activation_checkpointing=on).train()
        encoder = encoder.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            features = torch.cat([encoder(view) for view in draw_images(64, 64)])
        results.append(one_step(encoder, features.float().square().mean()))
    without, with_it = results
    assert torch.equal(with_it["loss"], without["loss"])
    for name, expected in without.items():
        if name.startswith("grad"):
            error = (with_it[name] - expected).norm() / expected.norm().clamp_min(1e-12)
            assert error < 2e-2, (name, error)  # 2^-8 is one rounding
        else:
            assert torch.equal(with_it[name], expected), name


def one_of_two(rank: int, on: bool) -> dict[str, Tensor]:
    method = build_method(make_cfg("cwrgp", KEY, on)).train()
    synchronize_batch_norm(method, torch.device("cpu"))
    model = DistributedDataParallel(method)
    views = [view[rank * BATCH // 2 :][: BATCH // 2] for view in draw_images(32, 32)]
    torch.manual_seed(0)
    return one_step(method, total(model, views))


@pytest.mark.dist
def test_two_processes_synchronise_the_recomputation_too(tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "with").mkdir()
    without = in_two_processes(tmp_path / "without", one_of_two, False)
    with_it = in_two_processes(tmp_path / "with", one_of_two, True)
    for expected, found in zip(without, with_it, strict=True):
        assert [*expected] == [*found]
        assert expected["encoder.layer1.0.bn1.num_batches_tracked"] == 2
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_buffers_are_put_back_where_the_recomputation_fails():
    norm = nn.BatchNorm1d(3)
    calls = []

    def forward(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) == 2:
            norm(x)
            raise ZeroDivisionError
        return norm(x).exp()

    y = recomputed(norm, forward, torch.randn(4, 3, requires_grad=True))
    buffers = dict(norm.named_buffers())
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert all(norm.get_buffer(name) is buffer for name, buffer in buffers.items())
    assert norm.num_batches_tracked == 1


def test_nothing_is_recomputed_without_gradients():
    calls = []

    def forward(x: Tensor) -> Tensor:
        calls.append(x)
        return x

    with torch.no_grad():
        recomputed(nn.Identity(), forward, torch.ones(1))
    assert len(calls) == 1


def peak_bytes(encoder: nn.Module, images: Tensor, file) -> int:
    """Of what torch allocates on the CPU in a step, by its profiler."""
    encoder(images).sum().backward()  # the gradients exist from now on
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        encoder(images).sum().backward()
    profiled.export_chrome_trace(str(file))
    events = json.loads(file.read_text())["traceEvents"]
    totals = [e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]"]
    return max(totals) - totals[0]


def test_the_memory_of_a_step_falls_to_less_than_half(tmp_path):
    images = torch.randn(12, 3, 112, 112)
    without, with_it = (
        peak_bytes(build_encoder(activation_checkpointing=on).train(), images, tmp_path / f"{on}")
        for on in (False, True)
    )
    assert 0 < with_it < without / 2
