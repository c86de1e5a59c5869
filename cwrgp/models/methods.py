"""A method: encoder, projector and loss as one module that maps views to losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Output(NamedTuple):
    """What a training step gets: named scalar losses to sum, and the embeddings to watch."""

    losses: dict[str, Tensor]
    embeddings: Tensor  # (V, B, D), detached


class JointEmbedding(nn.Module):
    """Symmetric joint embedding: one encoder, one projector, a loss over the embeddings of all
    views.

    The encoder runs once for each view, so BatchNorm's statistics are those of a view; the
    projector runs once on all views together, as in the paper's experiments.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (V B, F) -> (V B, D).
        loss: (V, B, D) -> scalar.
    """

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, loss: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.loss = loss

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the losses of a batch.

        Args:
            views: V normalised image batches (B, 3, H, W) of the same B samples.
        """
        features = torch.cat([self.encoder(view) for view in views])
        embeddings = self.projector(features).float().unflatten(0, (len(views), -1))
        return Output({"loss_cwrgp": self.loss(embeddings)}, embeddings.detach())
