"""The C4 box (and mask) head of the MoCo detection protocol, for every depth of ResNet.

Protocol: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
appendix A.2: the BatchNorm layers are trained, and one more follows res5, since the magnitude of
features may differ between unsupervised and supervised pretraining.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from cwrgp.models.resnet import BY_DEPTH


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """`Res5ROIHeads` with the blocks of the configured depth and a normalisation layer after res5.

    The extra layer's parameters are named ``roi_heads.res5.norm.*``, as in MoCo's detectors.
    Detectron2's head always builds three bottleneck blocks; here ResNet-18 and -34 get theirs.
    """

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        kwargs = super().from_config(cfg, input_shape)
        kwargs["res5"] = build_res5(cfg)
        return kwargs


def build_res5(cfg: CfgNode) -> nn.Sequential:
    """The blocks ``0``, ``1``, ... of stage res5 (stride 2), followed by the layer ``norm``.

    Args:
        cfg: reads ``MODEL.RESNETS``.

    Returns:
        A module from (R, C, H, W) regions of res4, where C is 4 * RES2_OUT_CHANNELS, to
        (R, 2C, H/2, W/2).

    Raises:
        ValueError: an unknown depth, or an option that this head does not support.
    """
    resnets = cfg.MODEL.RESNETS
    depth, norm = resnets.DEPTH, resnets.NORM
    if depth not in BY_DEPTH:
        raise ValueError(f"MODEL.RESNETS.DEPTH {depth} is unknown; known: {list(BY_DEPTH)}")
    layout = BY_DEPTH[depth]
    if not norm:
        raise ValueError(
            'MODEL.RESNETS.NORM "" provides no layer for the extra norm: use naiveSyncBN'
        )
    if resnets.DEFORM_ON_PER_STAGE[-1]:
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE: res5 of a C4 head cannot be deformable"
        )
    out_channels = 8 * resnets.RES2_OUT_CHANNELS
    num_blocks = layout.blocks[-1]
    block_class, options = BasicBlock, {}
    if layout.bottleneck:
        block_class = BottleneckBlock
        options = {
            "bottleneck_channels": 8 * resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP,
            "num_groups": resnets.NUM_GROUPS,
            "stride_in_1x1": resnets.STRIDE_IN_1X1,
        }
    blocks = ResNet.make_stage(
        block_class,
        num_blocks,
        stride_per_block=[2] + [1] * (num_blocks - 1),
        in_channels=out_channels // 2,
        out_channels=out_channels,
        norm=norm,
        **options,
    )
    res5 = nn.Sequential(*blocks)
    res5.add_module("norm", get_norm(norm, out_channels))
    return res5
