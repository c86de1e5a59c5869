"""VICReg: variance, invariance, covariance.

Shapes: V views, N samples of the global batch, D channels of the embedding.
"""

from __future__ import annotations

import functools
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.base import GatheredLoss, full_precision, stack_views


@full_precision
def vicreg_loss(
    views: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """VICReg (Bardes et al., ICLR 2022): lambda s + mu [v + v'] / 2 + nu [c + c'].

    The normalisation is that of the authors' code, to which the published weights and numbers
    belong. There s is the mean squared error over samples and channels, and v is halved; equations
    1 to 6 have a sum over channels and no half. For more than two views, s is the mean over pairs,
    v the mean over views and c twice the mean over views.

    Args:
        views: (V, N, D) embeddings.
        invariance: lambda, weight of s.
        variance: mu, weight of v, the mean over channels of max(0, 1 - sqrt(variance + eps)).
        covariance: nu, weight of c, the sum of the squared off-diagonal covariances divided by D.
        eps: added to the variances.

    Returns:
        A scalar.
    """
    num_samples, num_channels = stack_views(views, "VICReg").shape[1:]
    s = torch.stack([F.mse_loss(a, b) for a, b in combinations(views, 2)]).mean()
    h = views - views.mean(1, keepdim=True)
    v = F.relu(1 - (views.var(1) + eps).sqrt()).mean()
    cov = h.mT @ h / (num_samples - 1)  # (V, D, D)
    off = cov - torch.diag_embed(cov.diagonal(dim1=-2, dim2=-1))
    c = off.square().sum((-2, -1)).mean() / num_channels
    return invariance * s + variance * v + covariance * 2 * c


class VICRegLoss(GatheredLoss):
    """:func:`vicreg_loss` of the embeddings of all processes.

    It has no value for unrelated views: two of its terms weigh the scale of the embedding against
    each other, so that a smaller scale lowers the loss of views that have nothing in common.
    """

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
    ) -> None:
        super().__init__(
            functools.partial(
                vicreg_loss, invariance=invariance, variance=variance, covariance=covariance
            )
        )
