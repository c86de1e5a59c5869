"""The proof: it passes for the same network, and for no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from encoders import make_encoder
from torch import Tensor

from cwrgp.checkpoints.detectron2_names import to_detectron2
from d2_transfer.proof import verify

deep = pytest.mark.slow
ARCHITECTURES = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"]
DEEP = ["resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2"]


@pytest.mark.parametrize("arch", ARCHITECTURES + [pytest.param(a, marks=deep) for a in DEEP])
def test_the_proof_passes_for_a_right_conversion(arch: str) -> None:
    state = make_encoder(arch)
    proof = verify(state, to_detectron2(state), arch)
    assert 0 <= proof.float64 <= 1e-9
    assert 0 <= proof.float32 <= 1e-4


def swap_blocks(state: dict[str, Tensor]) -> None:
    first, second = "res3.0.conv2.weight", "res3.1.conv2.weight"
    state[first], state[second] = state[second], state[first]


FAULTS: dict[str, Callable[[dict[str, Tensor]], None]] = {
    "two layers swapped": swap_blocks,
    "input channels permuted": lambda s: s.update(
        {"res2.0.conv1.weight": s["res2.0.conv1.weight"].flip(1)}
    ),
    "statistics not copied": lambda s: s["res5.1.conv2.norm.running_mean"].zero_(),
    "one weight off by a little": lambda s: s["stem.conv1.weight"][0, 0, 3, 3].mul_(1 + 1e-5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proof_fails_for_a_wrong_conversion(fault: str) -> None:
    state = make_encoder(18)
    wrong = {name: tensor.clone() for name, tensor in to_detectron2(state).items()}
    FAULTS[fault](wrong)
    with pytest.raises(ValueError, match=r"the proof failed: res\d of Detectron2's .* differs"):
        verify(state, wrong, "resnet18")


def test_the_proof_loads_strictly() -> None:
    state = make_encoder(18)
    converted = to_detectron2(state)
    for wrong in (
        {k: v for k, v in converted.items() if k != "res4.0.shortcut.norm.bias"},
        {**converted, "res4.0.conv3.weight": torch.ones(1)},
        {**converted, "res4.0.shortcut.norm.bias": torch.ones(3)},
    ):
        with pytest.raises(ValueError, match="Detectron2's resnet18 does not load"):
            verify(state, wrong, "resnet18")
    state.pop("bn1.bias")
    with pytest.raises(ValueError, match="torchvision's resnet18 does not load"):
        verify(state, converted, "resnet18")


def test_the_proof_refuses_features_that_prove_nothing() -> None:
    state = {k: torch.zeros_like(v) for k, v in make_encoder(18).items()}
    with pytest.raises(ValueError, match="weights are broken: the largest feature of res2 is 0.0"):
        verify(state, to_detectron2(state), "resnet18")
    state = make_encoder(18)
    state["bn1.weight"] = torch.full((64,), 1e38)
    with pytest.raises(ValueError, match="the largest feature of res\\d is (inf|nan)"):
        verify(state, to_detectron2(state), "resnet18")
