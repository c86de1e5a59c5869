"""Detectors whose layers train in bf16: the same names, losses in fp32, close to those in fp32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, get_detection_dataset_dicts
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from repository import REPOSITORY
from torch import nn

from cwrgp.number_format import CANDIDATES, PLAIN, NumberFormat
from d2_transfer.config import get_cfg
from d2_transfer.data.registry import Reading, register_custom, use_reading
from d2_transfer.mixed_precision import use_number_format

QUICK = REPOSITORY / "configs" / "quick"
CONFIGS = ["detection_mask_rcnn_r18.yaml", "demo_mask_rcnn_r18.yaml"]  # FPN and C4
BF16 = NumberFormat("bf16", "channels_last")

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def detector(config: str, *opts: Any) -> tuple[CfgNode, nn.Module]:
    cfg = get_cfg()
    cfg.merge_from_file(str(QUICK / config))
    cfg.MODEL.DEVICE = "cpu"
    # All anchors and proposals count, so that the losses are not random.
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 10_000
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (64,), "none"
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return cfg, build_model(cfg).train()


def images(cfg: CfgNode, scenes: Any) -> list[dict[str, Any]]:
    register_custom([scenes.coco("mixed")])
    use_reading(["mixed"], Reading.of(cfg))
    return [DatasetMapper(cfg, True)(d) for d in get_detection_dataset_dicts(("mixed",))]


def losses_of(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # of the order in which the losses add up
    with EventStorage():
        return model(batch)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("number_format", CANDIDATES)
def test_names_and_values_of_the_weights_stay(config: str, number_format: NumberFormat) -> None:
    _, model = detector(config)
    before = copy.deepcopy(model.state_dict())
    after = use_number_format(model, number_format).state_dict()
    assert list(after) == list(before)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype, name


@pytest.mark.parametrize("config", CONFIGS)
def test_fp32_contiguous_changes_nothing(config: str, scenes: Any) -> None:
    cfg, plain = detector(config)
    same = use_number_format(copy.deepcopy(plain), PLAIN)
    assert [type(m) for m in same.modules()] == [type(m) for m in plain.modules()]
    batch = images(cfg, scenes)
    expected, found = losses_of(plain, batch), losses_of(same, batch)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_losses_and_gradients_in_bf16_are_close_to_fp32(config: str, scenes: Any) -> None:
    cfg, plain = detector(config)
    fast = use_number_format(copy.deepcopy(plain), BF16)
    batch = images(cfg, scenes)
    expected, found = losses_of(plain, batch), losses_of(fast, batch)
    assert {"loss_rpn_cls", "loss_box_reg", "loss_mask"} <= found.keys() == expected.keys()
    total = sum(loss.item() for loss in expected.values())
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        # Rounding also changes which regions are drawn; the loss of their boxes is small.
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.05, abs=0.01 * total), name
        assert loss.item() != expected[name].item(), name  # in bf16 it was
    for losses in (expected, found):
        sum(losses.values()).backward()
    exact = dict(plain.named_parameters())
    for name, parameter in fast.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    for name in ("proposal_generator.rpn_head.conv.weight", "roi_heads.mask_head.predictor.weight"):
        a, b = exact[name].grad.flatten(), fast.get_parameter(name).grad.flatten()
        assert torch.cosine_similarity(a, b, dim=0) > 0.98, name


@pytest.mark.parametrize("config", CONFIGS)
def test_what_the_layers_hand_on_is_fp32_and_evaluation_is_fp32_throughout(
    config: str, scenes: Any
) -> None:
    cfg, model = detector(config)
    plain = copy.deepcopy(model)
    use_number_format(model, BF16)
    batch = images(cfg, scenes)
    pixels = torch.randn(1, 3, 64, 64)
    seen: set[torch.dtype] = set()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    for features in model.backbone(pixels).values():
        assert features.dtype == torch.float32
    losses_of(model, batch)
    assert seen == {torch.bfloat16}
    seen.clear()
    plain.load_state_dict(model.state_dict())  # the statistics have moved
    model.eval()
    plain.eval()
    with torch.no_grad():
        model(batch)
        features, expected = model.backbone(pixels), plain.backbone(pixels)
    assert seen == {torch.float32}
    for name, value in expected.items():
        torch.testing.assert_close(features[name], value, rtol=1e-4, atol=1e-5)


def test_a_copy_runs_its_own_layers() -> None:
    _, model = detector(CONFIGS[1])
    use_number_format(model, BF16)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.backbone.parameters():
            parameter.zero_()
    assert other.backbone(torch.ones(1, 3, 64, 64))["res4"].abs().max() == 0
    assert model.backbone(torch.ones(1, 3, 64, 64))["res4"].abs().max() > 0


def test_retinanet_trains_in_bf16(scenes: Any) -> None:
    opts = ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.NUM_CLASSES", 2]
    opts += ["MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"]
    opts += ["MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]]
    opts += ["MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]]
    cfg, plain = detector(CONFIGS[0], *opts)
    batch = images(cfg, scenes)
    found = losses_of(use_number_format(copy.deepcopy(plain), BF16), batch)
    expected = losses_of(plain, batch)
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.05), name
