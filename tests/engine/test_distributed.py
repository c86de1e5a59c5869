"""Two gloo processes against one: BatchNorm, gathering, loss and gradient of a whole method."""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

from cwrgp.cli import run_main
from cwrgp.comm import gather
from cwrgp.errors import MissingPackage
from cwrgp.launch import launch
from cwrgp.losses.base import Loss
from cwrgp.losses.cwrgp import cwrgp_loss
from cwrgp.models.batch_norm import CPUSyncBatchNorm, synchronize_batch_norm
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding
from cwrgp.shared_memory import WorkerError

SUBBATCH = 8
CPU = torch.device("cpu")


def make_method(permutation: Tensor) -> JointEmbedding:
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", stem="small")
    projector = build_projector(512, hidden_features=32, out_features=64)

    class Partitioned(Loss):
        def forward(self, views: Tensor) -> Tensor:
            return cwrgp_loss(views, num_groups=2, subbatch_size=SUBBATCH, permutation=permutation)

    return JointEmbedding(encoder, projector, Partitioned()).double().train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, WORLD * SUBBATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    return images, torch.rand(2, 1, WORLD, 64, generator=generator).argsort(-1)


def results(method: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    encoder = method.encoder
    return {
        "loss": loss.detach(),
        "first": encoder.conv1.weight.grad,
        "last": encoder.layer4[1].bn2.weight.grad,
        "running": encoder.layer4[1].bn2.running_var,
        "mean": encoder.bn1.running_mean,
    }


def one_of_two(rank: int) -> dict[str, Tensor]:
    images, permutation = batch()
    method = make_method(permutation[:, :, rank : rank + 1])
    synchronize_batch_norm(method, CPU)
    model = DistributedDataParallel(method)
    local = images[:, rank * SUBBATCH : (rank + 1) * SUBBATCH]
    return results(method, model(list(local)).losses["loss_cwrgp"])


@pytest.mark.dist
def test_two_processes_have_the_loss_and_the_encoder_gradient_of_one(tmp_path):
    images, permutation = batch()
    method = make_method(permutation)
    expected = results(method, method(list(images)).losses["loss_cwrgp"])
    ranks = in_two_processes(tmp_path, one_of_two)
    torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2, expected["loss"])
    for name in ("first", "last", "running", "mean"):
        assert expected[name].norm() > 0
        for got in ranks:
            error = (got[name] - expected[name]).norm() / expected[name].norm()
            assert error < 1e-9, (name, error)


def batch_norm_and_gather(rank: int) -> dict[str, Tensor]:
    x = torch.arange(24, dtype=torch.float64).sin().view(WORLD, 3, 4)[rank].requires_grad_()
    norm = nn.Sequential(nn.BatchNorm1d(4)).double().train()
    synchronize_batch_norm(norm, CPU)
    y = norm(x)
    (y * torch.arange(4)).square().sum().backward()
    ragged = gather(torch.full((rank + 1, 2), rank))
    return {"y": y.detach(), "grad": x.grad, "var": norm[0].running_var, "ragged": ragged}


@pytest.mark.dist
def test_batch_norm_over_two_processes_is_torchs_own_over_the_whole_batch(tmp_path):
    ranks = in_two_processes(tmp_path, batch_norm_and_gather)
    x = torch.arange(24, dtype=torch.float64).sin().view(6, 4).requires_grad_()
    norm = nn.BatchNorm1d(4).double().train()
    y = norm(x)
    (y * torch.arange(4)).square().sum().backward()
    torch.testing.assert_close(torch.cat([r["y"] for r in ranks]), y.detach())
    torch.testing.assert_close(torch.cat([r["grad"] for r in ranks]), x.grad)
    torch.testing.assert_close(ranks[0]["var"], norm.running_var)
    for r in ranks:
        assert r["ragged"].tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_synchronised_batch_norm_is_as_the_one_that_it_replaces(monkeypatch):
    monkeypatch.setattr("cwrgp.models.batch_norm.get_world_size", lambda: WORLD)
    before = nn.BatchNorm1d(4, eps=0.1, momentum=0.3)
    before.weight.requires_grad_(False)
    after = synchronize_batch_norm(nn.Sequential(before), CPU)[0]
    assert type(after) is CPUSyncBatchNorm
    assert (after.eps, after.momentum, after.weight) == (0.1, 0.3, before.weight)


def test_one_process_keeps_its_batch_norm():
    module = nn.Sequential(nn.BatchNorm1d(4))
    assert type(synchronize_batch_norm(module, CPU)[0]) is nn.BatchNorm1d
    x = torch.randn(3, 2)
    assert gather(x) is x


def _mistaken(error: Exception) -> None:
    assert dist.get_world_size() == 2
    raise error


@pytest.mark.dist
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("value 3 is wrong\nin one process"), ValueError),
        (FileNotFoundError(2, "value 3 is wrong", "file"), FileNotFoundError),
        *(
            pytest.param(kind("value 3 is wrong"), kind, marks=pytest.mark.slow)
            for kind in (FloatingPointError, OSError, MissingPackage, WorkerError)
        ),
    ],
)
def test_a_mistake_in_a_started_process_is_the_parents(monkeypatch, capsys, error, kind):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # set by launch, and put back
    caught = []

    def main(args):
        try:
            launch(_mistaken, 2, (error,))
        except Exception as raised:
            caught.append(raised)
            raise

    assert run_main(main, argparse.Namespace(debug=False)) == 2
    assert [(type(e), str(e)) for e in caught] == [(kind, str(error))]
    assert capsys.readouterr().err.endswith(f"error: {' '.join(str(error).split())}\n")


def _stuck(folder: str, how: str) -> None:
    """Process 1 never ends by itself; process 0 dies, or has the parent interrupted."""
    Path(folder, f"{dist.get_rank()}.pid").write_text(str(os.getpid()))
    dist.barrier()
    while dist.get_rank() == 1:
        time.sleep(0.1)
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


@pytest.mark.dist
@pytest.mark.parametrize(
    ("how", "error"),
    [("dies", torch.multiprocessing.ProcessExitedException), ("interrupts", KeyboardInterrupt)],
)
def test_no_process_is_left_behind(monkeypatch, tmp_path, how, error):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    # A process that runs tests in parallel may ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(error):
            launch(_stuck, 2, (str(tmp_path), how))
    finally:
        signal.signal(signal.SIGINT, before)
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{rank}.pid").read_text()), 0)


def _one_is_mistaken() -> None:
    if dist.get_rank() == 0:
        raise ValueError("value 3 is wrong")
    dist.barrier()


@pytest.mark.dist
def test_a_mistake_of_one_process_is_told_although_others_fail_of_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    with pytest.raises(ValueError, match="^value 3 is wrong$"):
        launch(_one_is_mistaken, 2, ())


def test_more_processes_than_gpus_are_refused():
    count = torch.cuda.device_count() + 2
    with pytest.raises(ValueError, match=f"^num_gpus {count}: this machine shows"):
        launch(print, count, ())
