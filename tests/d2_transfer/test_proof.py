"""The proof: it passes for the same network, and for no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from encoders import make_encoder
from torch import Tensor, nn

from cwrgp.checkpoints.detectron2_names import to_detectron2
from d2_transfer.conversion import convert_file
from d2_transfer.proof import resnet_config, verify

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


class MoCo(nn.Module):
    """The module structure of MoCo's training code, as its checkpoints show it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_q = torchvision.models.resnet18(num_classes=128)
        self.encoder_k = torchvision.models.resnet18(num_classes=128)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder_q(images)


class BarlowTwins(nn.Module):
    """That of Barlow Twins: a backbone whose classifier is the identity, and a projector."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = nn.Identity()
        self.projector = nn.Linear(512, 16, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.backbone(images))


class Numbered(nn.Module):
    """A network of numbered children, without names, as VISSL and many scripts have it."""

    def __init__(self) -> None:
        super().__init__()
        children = list(torchvision.models.resnet18().children())
        self._feature_blocks = nn.Sequential(*children[:-1])

    def forward(self, images: Tensor) -> Tensor:
        return self._feature_blocks(images)


class Lightly(nn.Module):
    """That of lightly's tutorials: a numbered backbone, and a head of the package."""

    def __init__(self) -> None:
        super().__init__()
        from lightly.models.modules.heads import SimCLRProjectionHead

        children = list(torchvision.models.resnet18().children())
        self.backbone = nn.Sequential(*children[:-1])
        self.projection_head = SimCLRProjectionHead(512, 32, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection_head(self.backbone(images).flatten(start_dim=1))


def timm_resnet18() -> nn.Module:
    """timm's own implementation of the network."""
    import timm  # takes seconds

    return timm.create_model("resnet18", num_classes=10)


def _in_data_parallel(module: nn.Module) -> dict[str, Tensor]:
    return nn.DataParallel(module).state_dict()


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[nn.Module], dict[str, Any]]]] = {
    "moco": (MoCo, "encoder_q.layer4", lambda m: {"state_dict": _in_data_parallel(m)}),
    "barlow_twins": (BarlowTwins, "backbone.layer4", lambda m: {"model": _in_data_parallel(m)}),
    "vissl": (
        Numbered,
        "_feature_blocks.7",
        lambda m: {"classy_state_dict": {"base_model": {"model": {"trunk": m.state_dict()}}}},
    ),
    "torchvision": (torchvision.models.resnet18, "layer4", lambda m: m.state_dict()),
    "timm": (timm_resnet18, "layer4", lambda m: {"state_dict": m.state_dict(), "epoch": 1}),
    "lightly": (Lightly, "backbone.7", lambda m: m.state_dict()),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_converted_backbone_has_the_features_of_the_publishers_module(
    tmp_path: Path, name: str
) -> None:
    """The module that wrote the file, in its own structure, against Detectron2's backbone."""
    make, stage, pack = LAYOUTS[name]
    torch.manual_seed(0)
    module = make()
    images = torch.randn(4, 3, 96, 64)
    module.train()(images)  # BatchNorm's statistics are no longer the initial ones
    module.eval()
    torch.save(pack(module), tmp_path / "in.pth")
    conversion = convert_file(tmp_path / "in.pth", tmp_path / "out.pth", check=False)
    assert name in conversion.encoder.source.split(", ")

    features: list[Tensor] = []
    handle = module.get_submodule(stage).register_forward_hook(lambda *a: features.append(a[2]))
    with torch.no_grad():
        module(images)
    handle.remove()
    cfg = get_cfg()
    cfg.MODEL.RESNETS.update(resnet_config("resnet18"))
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.OUT_FEATURES = "BN", ["res5"]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    DetectionCheckpointer(backbone).load(str(tmp_path / "out.pth"))
    with torch.no_grad():
        found = backbone(images)["res5"]
    assert features[0].abs().max() > 0.1
    assert torch.allclose(found, features[0], rtol=1e-4, atol=1e-5)
