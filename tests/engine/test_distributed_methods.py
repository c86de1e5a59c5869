"""Methods that gather, in two gloo processes against one: loss, and the encoder's gradient."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

from cwrgp.comm import gather_with_gradient
from cwrgp.losses.barlow_twins import BarlowTwinsLoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.intl import INTLLoss
from cwrgp.losses.vicreg import VICRegLoss
from cwrgp.models.batch_norm import synchronize_batch_norm
from cwrgp.models.heads import build_predictor, build_projector
from cwrgp.models.methods import JointEmbedding, Method
from cwrgp.models.momentum_methods import BYOL, MomentumINTL

LOCAL = 5
CPU = torch.device("cpu")


LOSSES = {
    "simclr": functools.partial(NTXentLoss, 0.2),
    "barlow_twins": functools.partial(BarlowTwinsLoss, 0.1, 0.5),
    "vicreg": VICRegLoss,
    "intl": INTLLoss,
}
NAMES = [*LOSSES, "intl with momentum", "byol"]


def make_method(name: str) -> Method:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    projector = build_projector(32, hidden_features=16, out_features=12, last_bn=name == "byol")
    method: Method
    if name == "byol":
        method = BYOL(encoder, projector, build_predictor(12, hidden_features=8), 0.5)
    elif name == "intl with momentum":
        method = MomentumINTL(encoder, projector, INTLLoss(), 0.5)
    else:
        joint = name == "simclr"
        method = JointEmbedding(encoder, projector, LOSSES[name](), name, joint_projector=joint)
    return method.double().train()


def draw_images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (3, WORLD * LOCAL, 3, 6, 6)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64))


def two_steps(method: Method, model: nn.Module, views: list[Tensor]) -> dict[str, Tensor]:
    """Losses, gradients and weights after a step and what a second one has for a loss."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    results = {}
    for step in range(2):
        method.set_progress(step=step, total_steps=4, steps_per_epoch=2)
        output = model(views)
        optimizer.zero_grad()
        torch.stack(list(output.losses.values())).sum().backward()
        results |= {f"{step}.{name}": loss.detach() for name, loss in output.losses.items()}
        results |= {
            f"{step}.{name}.grad": p.grad.clone()
            for name, p in method.named_parameters()
            if p.grad is not None
        }
        optimizer.step()
        method.update_target()
    return results | {name: value.double() for name, value in method.state_dict().items()}


def one_of_two(rank: int) -> dict[str, dict[str, Tensor]]:
    results = {}
    for name in NAMES:
        method = make_method(name)
        synchronize_batch_norm(method, CPU)
        local = [view[rank * LOCAL : (rank + 1) * LOCAL] for view in draw_images()]
        results[name] = two_steps(method, DistributedDataParallel(method), local)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return in_two_processes(tmp_path_factory.mktemp("ranks"), one_of_two)


@pytest.mark.dist
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_losses_gradients_and_weights_of_one(ranks, name):
    method = make_method(name)
    expected = two_steps(method, method, draw_images())
    for got in ranks:
        assert got[name].keys() == expected.keys()
    # A linear layer's bias in front of a BatchNorm has no gradient but rounding.
    scale = max(
        value.norm() for key, value in expected.items() if key.endswith("encoder.0.weight.grad")
    )
    assert scale > 1e-4
    for key, value in expected.items():
        if ".loss_byol" in key:  # the mean over processes: nothing is gathered
            mean = (ranks[0][name][key] + ranks[1][name][key]) / 2
            torch.testing.assert_close(mean, value, rtol=1e-9, atol=0)
            continue
        for got in ranks:
            error = (got[name][key] - value).norm()
            assert error <= 1e-9 * max(value.norm(), scale if key.endswith(".grad") else 0), key


def gathered(rank: int) -> dict[str, Tensor]:
    x = torch.arange(12.0).view(2, 2, 3)[rank].double().requires_grad_()
    whole = gather_with_gradient(x.T, dim=-1)  # not contiguous
    weight = torch.arange(12.0).view(3, 4).double() + 1
    ((rank + 1) * weight * whole).sum().backward()
    return {"whole": whole.detach(), "grad": x.grad}


@pytest.mark.dist
def test_a_gather_gives_back_the_sum_of_the_processes_gradients(tmp_path):
    results = in_two_processes(tmp_path, gathered)
    weight = torch.arange(12.0).view(3, 4).double() + 1
    for rank, result in enumerate(results):
        torch.testing.assert_close(
            result["whole"], torch.arange(12.0).view(4, 3).T.double(), rtol=0, atol=0
        )
        expected = (1 + 2) * weight[:, 2 * rank : 2 * rank + 2].T
        torch.testing.assert_close(result["grad"], expected, rtol=0, atol=0)


def test_one_process_gathers_itself():
    x = torch.randn(3, 2, requires_grad=True)
    gather_with_gradient(x, dim=-1).sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))


def frozen_and_bare(rank: int) -> list[object]:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False))
    module[0].requires_grad_(False)
    synchronize_batch_norm(module, CPU)
    y = module(torch.arange(12.0).view(2, 2, 3)[rank])
    return [type(module[0]).__name__, module[0].weight.requires_grad, module[1].weight, y]


@pytest.mark.dist
def test_a_synchronised_batch_norm_stays_frozen_or_without_parameters(tmp_path):
    results = in_two_processes(tmp_path, frozen_and_bare)
    expected = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))(torch.arange(12.0).view(4, 3))
    for kind, requires_grad, weight, _ in results:
        assert kind == "CPUSyncBatchNorm" and requires_grad is False and weight is None
    torch.testing.assert_close(torch.cat([result[3] for result in results]), expected.detach())
