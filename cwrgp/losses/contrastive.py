"""SimCLR's contrastive loss.

Shapes: V views, N samples of the global batch, D channels of the embedding.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cwrgp.losses.base import GatheredLoss, full_precision, mean_of_different_views, stack_views


@full_precision
def nt_xent_loss(views: Tensor, *, temperature: float = 0.5) -> Tensor:
    """NT-Xent, SimCLR's loss (Chen et al., ICML 2020, equation 1).

    For two views this is the published loss. For more, each other view of the same sample is a
    positive in turn, and the denominator holds all other embeddings, including the other positives.

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
    return -mean_of_different_views(positives)


class NTXentLoss(GatheredLoss):
    """:func:`nt_xent_loss` of the embeddings of all processes.

    Args:
        temperature: divides the cosines.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} is not positive")
        super().__init__(functools.partial(nt_xent_loss, temperature=temperature))
        self.temperature = temperature

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """log(V N - 1): each of the V N - 1 other embeddings is as likely as the positive.

        The limit of wide embeddings, whose cosines vanish. In D channels the loss is about
        1 / (2 D temperature^2) above it.
        """
        return math.log(num_views * num_samples - 1)

    def value_for_aligned(self, num_samples: int, *, num_views: int = 2) -> float:
        """log(V - 1 + V (N - 1) exp(-1 / temperature)), which is far from 0 for many samples."""
        others = num_views * (num_samples - 1)
        return math.log(num_views - 1 + others * math.exp(-1 / self.temperature))
