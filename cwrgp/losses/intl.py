"""INTL: IterNorm with trace loss (Weng et al., "Modulate Your Spectrum in Self-Supervised
Learning", ICLR 2024, arXiv 2305.16789).

Shapes: V views, N samples of the global batch, D channels of the embedding.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.comm import get_world_size
from cwrgp.losses.base import GatheredLoss, full_precision


@full_precision
def iterative_normalization(x: Tensor, *, iterations: int = 4) -> Tensor:
    """Whitens the samples approximately, by T Newton-Schulz iterations for S^(-1/2).

    Args:
        x: (..., N, D); each row is centred over its D channels.
        iterations: T; with more of them the result is closer to ZCA whitening.

    Returns:
        Z = P_T X / sqrt(tr S), (..., N, D), with S = X X^T / (D - 1).
    """
    x = x - x.mean(-1, keepdim=True)
    s = x @ x.mT / (x.shape[-1] - 1)  # (..., N, N)
    trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    p = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    for _ in range(iterations):
        p = 1.5 * p - 0.5 * p @ p @ p @ (s / trace)
    return p @ x / trace.sqrt()


@full_precision
def trace_loss(z: Tensor) -> Tensor:
    """sum_n (||z_n - mean(z_n)||^2 / (D - 1) - 1)^2, which pulls the variance of each sample to 1.

    Args:
        z: (..., N, D).

    Returns:
        (...): the sum over the samples.
    """
    return (z.var(-1) - 1).square().sum(-1)


def trace_weight(num_samples: int) -> float:
    """The paper's weight beta = 0.01 (log2 N - 3) of the trace loss, for a global batch of N.

    Raises:
        ValueError: N is below 8, where it would be negative.
    """
    if num_samples < 8:
        raise ValueError(
            f"a global batch of {num_samples} gives INTL's trace loss a negative weight; use a "
            "batch of 8 or more, or set the weight yourself"
        )
    return 0.01 * (math.log2(num_samples) - 3)


@full_precision
def intl_loss(
    online: Tensor,
    target: Tensor | None = None,
    *,
    iterations: int = 4,
    weight: float | None = None,
) -> dict[str, Tensor]:
    """IterNorm with trace loss, without or with a momentum network.

    With Z = IterNorm(embeddings) and TL the trace loss:

    - without a target, the mean over i = 1 .. V - 1 of
      2 - 2 cos(Z_i, Z_0) + beta (TL(Z_i) + TL(Z_0)); both views get a gradient;
    - with a target, the mean over all online views i of 2 - 2 cos(Z_i, Z_target) + beta TL(Z_i).

    Args:
        online: (V, N, D) embeddings of the global batch.
        target: (N, D) embeddings of view 0 by the momentum network; it gets no gradient.
        iterations: T.
        weight: beta; None: :func:`trace_weight` of N.

    Returns:
        Two scalars, whose sum is the loss: ``loss_intl``, averaged over samples, and
        ``loss_trace``, summed over samples and weighted.

    Raises:
        ValueError: no view to compare with.
    """
    if online.dim() != 3 or len(online) < (2 if target is None else 1):
        raise ValueError(f"INTL needs two views or more, (V, N, D), got {tuple(online.shape)}")
    beta = trace_weight(online.shape[-2]) if weight is None else weight
    z = iterative_normalization(online, iterations=iterations)
    trace = trace_loss(z)  # (V,)
    if target is None:
        anchor, z = z[0], z[1:]
        mean_trace = trace[1:].mean() + trace[0]
    else:
        anchor = iterative_normalization(target.detach(), iterations=iterations)
        mean_trace = trace.mean()
    cosine = (F.normalize(z, dim=-1) * F.normalize(anchor, dim=-1)).sum(-1)
    return {"loss_intl": 2 - 2 * cosine.mean(), "loss_trace": beta * mean_trace}


class INTLLoss(GatheredLoss):
    """:func:`intl_loss` of the embeddings of all processes.

    Args:
        iterations: T.
        weight: beta; None: the paper's, from the global batch.

    Raises:
        ValueError: fewer than one iteration.
    """

    alignment = "loss_intl"

    def __init__(self, iterations: int = 4, weight: float | None = None) -> None:
        if iterations < 1:
            raise ValueError(f"iterations {iterations} is below 1")
        super().__init__(functools.partial(intl_loss, iterations=iterations, weight=weight))
        self.weight = weight

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """2, of ``loss_intl``: whitening keeps the symmetry about zero; the mean cosine is 0."""
        return 2.0

    def check(self, batch_size: int, num_channels: int) -> None:
        """Checks that the global batch gives the trace loss a weight; see :meth:`Loss.check`."""
        if self.weight is None:
            trace_weight(batch_size * get_world_size())
