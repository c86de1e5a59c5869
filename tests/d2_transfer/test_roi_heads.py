"""The C4 head of the protocol, for every depth."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from d2_transfer.config import get_cfg
from d2_transfer.roi_heads import Res5ROIHeadsExtraNorm, build_res5

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's own


def c4_config(depth: int) -> object:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.NORM = "naiveSyncBN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeadsExtraNorm"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 6
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 10
    return cfg


def test_it_is_registered() -> None:
    assert ROI_HEADS_REGISTRY.get("Res5ROIHeadsExtraNorm") is Res5ROIHeadsExtraNorm


# Channels of res4 and res5, and blocks of res5 (He et al., CVPR 2016, table 1).
@pytest.mark.parametrize(
    ("depth", "channels_in", "channels_out", "block", "num_blocks"),
    [
        (18, 256, 512, BasicBlock, 2),
        (34, 256, 512, BasicBlock, 3),
        (50, 1024, 2048, BottleneckBlock, 3),
        (101, 1024, 2048, BottleneckBlock, 3),
        (152, 1024, 2048, BottleneckBlock, 3),
    ],
)
def test_res5_is_that_of_the_depth(
    depth: int, channels_in: int, channels_out: int, block: type, num_blocks: int
) -> None:
    res5 = build_res5(c4_config(depth))
    blocks = list(res5.children())[:-1]
    assert [type(b) for b in blocks] == [block] * num_blocks
    assert isinstance(res5.norm, NaiveSyncBatchNorm)
    assert res5.norm.num_features == channels_out
    # The extra norm comes last: in training its output has mean 0 and variance 1 in each channel.
    out = res5(torch.randn(4, channels_in, 6, 6))
    assert out.shape == (4, channels_out, 3, 3)
    assert torch.allclose(out.mean(dim=(0, 2, 3)), torch.zeros(channels_out), atol=1e-5)


def test_res5_strides_where_torchvision_does() -> None:
    blocks = build_res5(c4_config(50))
    assert blocks[0].conv1.stride == (1, 1)
    assert blocks[0].conv2.stride == (2, 2)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_a_detector_trains_and_predicts(depth: int) -> None:
    torch.manual_seed(0)
    model = build_model(c4_config(depth))
    names = {name for name, _ in model.named_parameters() if name.startswith("roi_heads.res5.norm")}
    assert names == {"roi_heads.res5.norm.weight", "roi_heads.res5.norm.bias"}
    # 96 px: res4 has 6x6 cells, so that BatchNorm has something to normalise.
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    target = Instances((96, 96))
    target.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 70.0, 60.0]]))
    target.gt_classes = torch.tensor([1])
    mask = torch.zeros(1, 96, 96, dtype=torch.bool)
    mask[:, 10:60, 10:70] = True
    target.gt_masks = BitMasks(mask)
    batch = [{"image": image, "instances": target, "height": 96, "width": 96}] * 2
    with EventStorage():
        losses = model(batch)
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    assert model.roi_heads.res5.norm.weight.grad.abs().sum() > 0
    with torch.no_grad():
        result = model.eval()(batch[:1])[0]["instances"]
    assert result.pred_masks.shape[1:] == (96, 96)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DEPTH", 26, "MODEL.RESNETS.DEPTH 26 is unknown; known: .18, 34, 50, 101, 152."),
        ("NORM", "", 'MODEL.RESNETS.NORM "" provides no layer for the extra norm'),
        ("DEFORM_ON_PER_STAGE", [False, False, False, True], "cannot be deformable"),
    ],
)
def test_what_it_cannot_honour_is_an_error(key: str, value: object, message: str) -> None:
    cfg = c4_config(50)
    cfg.MODEL.RESNETS[key] = value
    with pytest.raises(ValueError, match=message):
        build_res5(cfg)
