"""The methods that whitening losses are compared with: SimCLR, BYOL, SimSiam, Barlow Twins, VICReg.

The legend of the shapes: V views, N samples of the global batch, B of them on this process, D
channels of the embedding.
"""

from __future__ import annotations

import functools
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.inputs import GatheredLoss, full_precision, stack_views


@full_precision
def nt_xent_loss(views: Tensor, *, temperature: float = 0.5) -> Tensor:
    """NT-Xent, SimCLR's loss (Chen et al., ICML 2020, equation 1).

    For two views the published loss. For more, every other view of the same sample is a positive
    in its turn, and all other embeddings, the other positives too, are in the denominator.

    Args:
        views: (V, N, D) embeddings.
        temperature: divides the cosines.

    Returns:
        A scalar: the mean over samples and ordered pairs of views.
    """
    num_views, num_samples, _ = stack_views(views, "SimCLR").shape
    z = F.normalize(views, dim=-1).flatten(0, 1)  # (V N, D)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    log_probability = similarity.log_softmax(-1).view(num_views, num_samples, num_views, -1)
    positives = log_probability.diagonal(dim1=1, dim2=3)  # (V, V, N)
    return -_mean_of_different(positives)


@full_precision
def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """The loss of BYOL (Grill et al., NeurIPS 2020, equation 2) and SimSiam (Chen and He, CVPR
    2021, equation 2): each view predicts the others, which stand behind a stop-gradient.

    BYOL's paper adds the two directions where this is their mean. SimSiam's loss is half of this,
    but for a constant: the mean of -cos.

    Args:
        predictions: (V, B, D).
        targets: (V, B, D), of the same samples; they receive no gradient.

    Returns:
        A scalar: 2 - 2 cos(prediction_i, target_j), averaged over samples and ordered pairs i != j.
    """
    stack_views(predictions, "prediction of views by each other")
    p, t = F.normalize(predictions, dim=-1), F.normalize(targets.detach(), dim=-1)
    cosine = torch.einsum("ibd,jbd->ijb", p, t)
    return 2 - 2 * _mean_of_different(cosine)


def _mean_of_different(x: Tensor) -> Tensor:
    """The mean of x (V, V, N) over pairs i != j of views; indexing by a mask would wait for the
    GPU."""
    num_views, _, num_samples = x.shape
    same = torch.eye(num_views, dtype=torch.bool, device=x.device).unsqueeze(-1)
    return x.masked_fill(same, 0).sum() / (num_views * (num_views - 1) * num_samples)


@full_precision
def barlow_twins_loss(
    views: Tensor, *, off_diagonal: float = 0.0051, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """Barlow Twins (Zbontar et al., ICML 2021, equations 1 and 2).

    The cross-correlation of two views is an average over the N **samples**.

    Args:
        views: (V, N, D) embeddings.
        off_diagonal: lambda, weight of the off-diagonal correlations.
        scale: of the whole loss.
        eps: added to the variances, as in the authors' BatchNorm.

    Returns:
        A scalar: the mean over the V (V - 1) / 2 pairs of views.
    """
    num_samples = stack_views(views, "Barlow Twins").shape[1]
    z = views - views.mean(1, keepdim=True)
    z = z / (z.square().mean(1, keepdim=True) + eps).sqrt()
    losses = []
    for a, b in combinations(z, 2):
        c = a.T @ b / num_samples  # (D, D)
        on = (1 - c.diagonal()).square().sum()
        off = (c - c.diagonal().diag()).square().sum()
        losses.append(on + off_diagonal * off)
    return scale * torch.stack(losses).mean()


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

    With the normalisers of the authors' code, which the published weights and numbers belong to: s
    is the mean squared error over samples and channels and v is halved, where equations 1 to 6 have
    a sum over channels and no half. For more than two views, s is a mean over pairs, v the mean and
    c twice the mean over views.

    Args:
        views: (V, N, D) embeddings.
        invariance: lambda.
        variance: mu, of the hinge max(0, 1 - sqrt(variance + eps)), a mean over channels.
        covariance: nu, of the squared off-diagonal covariances, their sum divided by D.
        eps: see above.

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


class NTXentLoss(GatheredLoss):
    """:func:`nt_xent_loss` of the embeddings of all processes."""

    def __init__(self, temperature: float = 0.5) -> None:
        if temperature <= 0:
            raise ValueError(f"METHOD.SIMCLR.TEMPERATURE {temperature} is not positive")
        super().__init__(functools.partial(nt_xent_loss, temperature=temperature))


class BarlowTwinsLoss(GatheredLoss):
    """:func:`barlow_twins_loss` of the embeddings of all processes."""

    def __init__(self, off_diagonal: float = 0.0051, scale: float = 1.0) -> None:
        super().__init__(
            functools.partial(barlow_twins_loss, off_diagonal=off_diagonal, scale=scale)
        )


class VICRegLoss(GatheredLoss):
    """:func:`vicreg_loss` of the embeddings of all processes."""

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
    ) -> None:
        super().__init__(
            functools.partial(
                vicreg_loss, invariance=invariance, variance=variance, covariance=covariance
            )
        )
