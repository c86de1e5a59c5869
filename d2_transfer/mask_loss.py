"""Objects without a mask have no part in the mask loss."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Instances
from torch import Tensor, nn


def omit_maskless(model: nn.Module) -> None:
    """Makes the mask heads of a model ignore, in training, what has no mask; in place.

    The ROI heads copy all fields ``gt_*`` of an object to its proposals. Here the rows whose
    ``gt_has_mask`` is False are dropped before the mask head, whose loss is a mean over the rest.
    Parameters and their names stay as they are.

    Args:
        model: a detector, with mask heads or without.
    """
    for module in model.modules():
        if isinstance(module, BaseMaskRCNNHead):
            module.register_forward_pre_hook(_drop_rows)


def _drop_rows(
    head: nn.Module, arguments: tuple[Any, list[Instances]]
) -> tuple[Any, list[Instances]] | None:
    features, instances = arguments
    if not head.training or not any(i.has("gt_has_mask") for i in instances):
        return None
    keep = [
        i.gt_has_mask
        if i.has("gt_has_mask")
        else torch.ones(len(i), dtype=torch.bool, device=features.device)
        for i in instances
    ]
    assert isinstance(features, Tensor)  # one row for each instance
    rows = torch.cat(keep)
    return features[rows], [i[mask] for i, mask in zip(instances, keep, strict=True)]
