"""The loss of BYOL and SimSiam: views predict each other.

Shapes: V views, B samples on this process, D channels of the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.base import full_precision, mean_of_different_views, stack_views


@full_precision
def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """The loss of BYOL (Grill et al., NeurIPS 2020, equation 2) and SimSiam (Chen and He, CVPR
    2021, equation 2): each view predicts the others, which get no gradient.

    BYOL's paper sums over the two directions; this is their mean. SimSiam's loss, the mean of
    -cos, is half of this minus 1.

    Args:
        predictions: (V, B, D).
        targets: (V, B, D), of the same samples; they get no gradient.

    Returns:
        A scalar: 2 - 2 cos(prediction_i, target_j), averaged over samples and ordered pairs i != j.
    """
    stack_views(predictions, "prediction of views by each other")
    p, t = F.normalize(predictions, dim=-1), F.normalize(targets.detach(), dim=-1)
    cosine = torch.einsum("ibd,jbd->ijb", p, t)
    return 2 - 2 * mean_of_different_views(cosine)
