"""Methods whose targets come from a moving average of the network: BYOL and INTL with momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cwrgp.losses.base import Loss
from cwrgp.losses.regression import regression_loss
from cwrgp.models.methods import Method, Output, embed
from cwrgp.models.momentum import frozen_copy, momentum_at, move_towards
from cwrgp.profiling import part


class MomentumMethod(Method):
    """A method whose targets come from a moving average of encoder and projector.

    The momentum networks start as copies, get no gradient and are part of the state. They are in
    training mode, as in the papers of MoCo, BYOL and INTL, so their BatchNorm normalises with the
    statistics of the batch. Only parameters are averaged; the running statistics are those of the
    batches that the momentum network itself has seen.

    When the networks move, and by which momentum, is up to the subclass.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (B, F) -> (B, D).
        momentum: m_0; see :func:`cwrgp.models.momentum.momentum_at`.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, momentum: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.momentum_encoder = frozen_copy(encoder)
        self.momentum_projector = frozen_copy(projector)
        self.first_momentum = self.momentum = momentum

    def move_target(self) -> None:
        """Moves the momentum networks towards the online ones by ``self.momentum``."""
        move_towards(self.momentum_encoder, self.encoder, momentum=self.momentum)
        move_towards(self.momentum_projector, self.projector, momentum=self.momentum)

    @torch.no_grad()
    def targets(self, views: Sequence[Tensor]) -> Tensor:
        """Embeddings (V, B, D) of the momentum networks, without gradient."""
        networks = self.momentum_encoder, self.momentum_projector
        return embed(*networks, views, joint=False).embeddings


class BYOL(MomentumMethod):
    """Each view predicts the momentum network's embeddings of the others (Grill et al., NeurIPS
    2020, equations 1 and 2). The momentum network moves after each step of the optimizer.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (B, F) -> (B, D).
        predictor: (B, D) -> (B, D).
        momentum: m_0.
    """

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, predictor: nn.Module, momentum: float
    ) -> None:
        super().__init__(encoder, projector, momentum)
        self.predictor = predictor

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Sets the momentum m_t of step t."""
        self.momentum = momentum_at(step, total_steps, first=self.first_momentum)

    def update_target(self) -> None:
        """Moves the momentum networks by m_t, after step t of the optimizer."""
        self.move_target()

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the loss of V image batches (B, 3, H, W)."""
        z, features = embed(self.encoder, self.projector, views, joint=False)
        predictions = torch.stack([self.predictor(view) for view in z])
        targets = self.targets(views)
        with part("loss"):
            loss = regression_loss(predictions, targets)
        return Output({"loss_byol": loss}, z.detach(), features)

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        """2, since the mean cosine is 0."""
        return {"loss_byol": 2.0}


class MomentumINTL(MomentumMethod):
    """INTL with a momentum network, which embeds view 0; the online network embeds all others
    (Weng et al., ICLR 2024). As in the authors' code, the momentum network moves before each
    forward pass.

    With views of different sizes, view 0 should be one of the large ones.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (B, F) -> (B, D).
        loss: online (V - 1, B, D) and target (B, D) -> named scalars.
        momentum: m_0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        loss: Loss,
        momentum: float,
    ) -> None:
        super().__init__(encoder, projector, momentum)
        self.loss = loss

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Moves the momentum networks by m_(t + 1), before the forward pass of step t.

        So the targets follow the weights with which the online networks embed. A checkpoint is
        written after a step and the move belongs to the next one, so a resumed run makes it once.
        """
        self.loss.set_progress(step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        self.momentum = momentum_at(step + 1, total_steps, first=self.first_momentum)
        self.move_target()

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the losses of V >= 2 image batches (B, 3, H, W); V - 1 embeddings to monitor."""
        z, features = embed(self.encoder, self.projector, views[1:], joint=False)
        target = self.targets(views[:1])[0]
        with part("loss"):
            losses = self.loss(z, target)
        return Output(losses, z.detach(), features)

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        """That of the loss."""
        value = self.loss.value_for_unrelated(
            batch_size, num_views=num_views, num_channels=num_channels
        )
        return {} if value is None else {self.loss.alignment: value}
