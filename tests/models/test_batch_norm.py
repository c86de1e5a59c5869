"""BatchNorm over two processes that hold different numbers of samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from two_processes import in_two_processes

from cwrgp.models.batch_norm import CPUSyncBatchNorm, synchronize_batch_norm

CPU = torch.device("cpu")
SHARES = [3, 5]


def draw(*rest: int) -> tuple[Tensor, Tensor]:
    """A batch with the samples of both processes, and the gradient of what is made of it."""
    generator = torch.Generator().manual_seed(0)
    shape = (sum(SHARES), 4, *rest)
    x, weight = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return 3 * x + 7, weight


def results(norm: nn.Module, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    x.requires_grad_()
    y = norm(x)
    (y * weight).sum().backward()
    return {
        "y": y.detach(),
        "x.grad": x.grad,
        "weight.grad": norm.weight.grad,
        "bias.grad": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
    }


def make_norm() -> nn.Module:
    norm = nn.BatchNorm1d(4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1, 5))
    return norm


def one_of_two(rank: int) -> list[dict[str, Tensor]]:
    found = []
    for rest in ((), (5,)):
        norm = synchronize_batch_norm(make_norm(), CPU)
        found.append(results(norm, *(part.split(SHARES)[rank].clone() for part in draw(*rest))))
    return found


@pytest.mark.dist
def test_unequal_shares_are_normalised_as_one_batch(tmp_path):
    ranks = in_two_processes(tmp_path, one_of_two)
    for case, rest in enumerate(((), (5,))):
        expected = results(make_norm(), *draw(*rest))
        first, second = ranks[0][case], ranks[1][case]
        for name in ("y", "x.grad"):
            torch.testing.assert_close(torch.cat([first[name], second[name]]), expected[name])
        for name in ("weight.grad", "bias.grad"):
            torch.testing.assert_close(first[name] + second[name], expected[name])
        for name in ("mean", "var"):
            for got in (first, second):
                torch.testing.assert_close(got[name], expected[name])


def too_few(rank: int) -> str:
    norm = synchronize_batch_norm(nn.BatchNorm1d(4), CPU)
    with pytest.raises(ValueError) as error:
        norm(torch.randn(1 - rank, 4))
    return str(error.value)


@pytest.mark.dist
def test_one_sample_on_all_processes_is_refused_on_all(tmp_path):
    message = "BatchNorm needs two values per channel or more, got 1 over all processes"
    assert in_two_processes(tmp_path, too_few) == [message] * 2


def test_an_input_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected \(B, C, ...\), got shape \(4,\)"):
        CPUSyncBatchNorm(4)(torch.randn(4))
