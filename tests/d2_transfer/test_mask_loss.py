"""Objects without a mask leave the mask head's gradient as it is without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from repository import REPOSITORY
from torch import nn

from cwrgp.cli import load_config
from d2_transfer.config import get_cfg
from d2_transfer.mask_loss import omit_maskless

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's own

CONFIGS = {"C4": "detection_faster_rcnn_r18_c4", "FPN": "detection_mask_rcnn_r18"}
BOXES = torch.tensor([[4.0, 4, 60, 50], [64, 10, 120, 70], [20, 70, 90, 120]])
SIDE = 128


def config(kind: str) -> CfgNode:
    cfg = get_cfg()
    load_config(cfg, str(REPOSITORY / "configs" / "quick" / f"{CONFIGS[kind]}.yaml"), [])
    cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON = "cpu", True
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    # Each proposal is used, and none has an influence on another's features.
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    if kind == "FPN":
        cfg.MODEL.FPN.NORM = ""
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 1000
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 1.0
    return cfg


def objects(keep: list[int], masks: str, has_mask: list[bool] | None = None) -> Instances:
    found = Instances((SIDE, SIDE))
    found.gt_boxes = Boxes(BOXES[keep])
    found.gt_classes = torch.tensor([n % 2 for n in keep])
    corners = [BOXES[n].tolist() for n in keep]
    polygons = [[torch.tensor([a, b, c, b, c, d, a, d]).numpy()] for a, b, c, d in corners]
    if masks == "polygon":
        found.gt_masks = PolygonMasks(polygons)
    else:
        found.gt_masks = BitMasks.from_polygon_masks(PolygonMasks(polygons), SIDE, SIDE)
    if has_mask is not None:
        found.gt_has_mask = torch.tensor(has_mask)
    return found


def mask_gradients(model: nn.Module, targets: list[Instances]) -> dict[str, torch.Tensor]:
    """Of one image for each of the targets, with the objects' boxes as proposals."""
    model.zero_grad()
    model.train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images = model.preprocess_image([{"image": image}] * len(targets))
    features = model.backbone(images.tensor)
    proposals = []
    for _ in targets:
        of_image = Instances((SIDE, SIDE))
        of_image.proposal_boxes = Boxes(BOXES + 1)
        of_image.objectness_logits = torch.zeros(len(BOXES))
        proposals.append(of_image)
    with EventStorage():
        _, losses = model.roi_heads(images, features, proposals, targets)
    losses["loss_mask"].backward()
    head = model.roi_heads.mask_head
    return {name: p.grad.clone() for name, p in head.named_parameters()}


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_gradient_is_that_without_the_object(kind: str, masks: str) -> None:
    torch.manual_seed(0)
    model: Any = build_model(config(kind))
    names = list(model.state_dict())
    marked = [objects([0, 1, 2], masks, [True, False, True]), objects([1], masks)]
    wrong = mask_gradients(model, marked)
    omit_maskless(model)
    found = mask_gradients(model, marked)
    expected = mask_gradients(model, [objects([0, 2], masks), objects([1], masks)])
    assert_close(found, expected)
    assert any(not torch.allclose(found[n], wrong[n], rtol=1e-2) for n in found)
    assert any(gradient.abs().max() > 1e-5 for gradient in found.values())
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_any_mask_the_loss_is_0(kind: str) -> None:
    model: Any = build_model(config(kind))
    omit_maskless(model)
    found = mask_gradients(model, [objects([0, 1], "polygon", [False, False])])
    assert all(not gradient.any() for gradient in found.values())


def test_predictions_are_not_changed() -> None:
    torch.manual_seed(0)
    model: Any = build_model(config("FPN"))
    model.eval()
    batch = [{"image": torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)}]
    with torch.no_grad():
        before = model(batch)[0]["instances"]
        omit_maskless(model)
        after = model(batch)[0]["instances"]
    assert torch.equal(before.pred_boxes.tensor, after.pred_boxes.tensor)
    assert torch.equal(before.pred_masks, after.pred_masks)
