"""A method: encoder, heads and loss as one module that maps views to losses.

Encoders run once for each view, so views may have different image sizes and BatchNorm's statistics
are those of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cwrgp.losses.base import at_least_float32
from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.losses.regression import regression_loss
from cwrgp.models.momentum import frozen_copy, momentum_at, move_towards


class Output(NamedTuple):
    """What a training step gets: named scalar losses to sum, and the embeddings to watch."""

    losses: dict[str, Tensor]
    embeddings: Tensor  # (V, B, D), detached


class Method(nn.Module):
    """What the training loop knows of a method: views -> :class:`Output`, and two hooks."""

    encoder: nn.Module
    projector: nn.Module

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Called before every step, for what changes in the course of a run.

        Args:
            step: that comes, from 0.
            total_steps: of the run.
            steps_per_epoch: of an epoch.
        """

    def update_target(self) -> None:
        """Called after every step of the optimizer, for momentum networks."""

    def smallest_eigenvalue(self, embeddings: Tensor) -> Tensor | None:
        """Of the covariances that the loss inverts, of embeddings (V, B, D); None: it has none."""
        return None

    def chance_loss(self, batch_size: int) -> float | None:
        """The sum of the losses when views of an image are as unlike as views of different images.

        Args:
            batch_size: samples that the loss compares, over all processes.

        Returns:
            None where it is not known.
        """
        return None


def embed(
    encoder: nn.Module, projector: nn.Module, views: Sequence[Tensor], *, joint: bool
) -> Tensor:
    """Embeddings (V, B, D), in fp32 at least, of V image batches (B, 3, H, W).

    Args:
        encoder: (B, 3, H, W) -> (B, F), run on each view.
        projector: (M, F) -> (M, D).
        views: the images; H and W may differ from view to view.
        joint: whether the projector sees all views at once, so that its BatchNorm has the
            statistics of all, or each on its own.
    """
    features = [encoder(view) for view in views]
    if joint:
        z = projector(torch.cat(features)).unflatten(0, (len(views), -1))
    else:
        z = torch.stack([projector(feature) for feature in features])
    return at_least_float32(z)


class JointEmbedding(Method):
    """Symmetric joint embedding: one encoder, one projector, a loss over the embeddings of all
    views.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (M, F) -> (M, D).
        loss: (V, B, D) -> scalar, or several with their names.
        name: of the method, for a loss that is a scalar.
        joint_projector: see :func:`embed`; true in W-MSE's and CW-RGP's experiments.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        loss: Callable[[Tensor], Tensor | dict[str, Tensor]],
        name: str = "cwrgp",
        joint_projector: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.loss = loss
        self.name = name
        self.joint_projector = joint_projector

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Tells the loss, where it changes in the course of a run."""
        if isinstance(self.loss, CWRGPLoss):
            self.loss.set_progress(
                step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch
            )

    def smallest_eigenvalue(self, embeddings: Tensor) -> Tensor | None:
        """Asks the loss, where it inverts covariances."""
        if isinstance(self.loss, CWRGPLoss | WhiteningLoss):
            return self.loss.smallest_eigenvalue(embeddings)
        return None

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the losses of a batch.

        Args:
            views: V normalised image batches (B, 3, H, W) of the same B samples.
        """
        z = embed(self.encoder, self.projector, views, joint=self.joint_projector)
        loss = self.loss(z)
        return Output(loss if isinstance(loss, dict) else {f"loss_{self.name}": loss}, z.detach())


class SimSiam(Method):
    """Each view predicts the others behind a stop-gradient (Chen and He, CVPR 2021).

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (B, F) -> (B, D).
        predictor: (B, D) -> (B, D).
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.predictor = predictor

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the loss of V image batches (B, 3, H, W)."""
        z = embed(self.encoder, self.projector, views, joint=False)
        predictions = torch.stack([self.predictor(view) for view in z])
        # The paper's -cos has half the slope of 2 - 2 cos, to which its learning rates belong.
        return Output({"loss_simsiam": regression_loss(predictions, z) / 2}, z.detach())


class MomentumMethod(Method):
    """A method whose targets come from a moving average of encoder and projector.

    The momentum networks start as copies, have no gradient and are part of the state. They are in
    training mode, as in the papers of MoCo, BYOL and INTL: BatchNorm normalises with the statistics
    of the batch there too. Only parameters are averaged; the running statistics are those of what
    the momentum network itself has seen.

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

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Sets the momentum m_t of this step."""
        self.momentum = momentum_at(step, total_steps, first=self.first_momentum)

    def update_target(self) -> None:
        """Moves the momentum networks towards the online ones."""
        move_towards(self.momentum_encoder, self.encoder, momentum=self.momentum)
        move_towards(self.momentum_projector, self.projector, momentum=self.momentum)

    @torch.no_grad()
    def targets(self, views: Sequence[Tensor]) -> Tensor:
        """Embeddings (V, B, D) by the momentum networks, without gradient."""
        return embed(self.momentum_encoder, self.momentum_projector, views, joint=False)


class BYOL(MomentumMethod):
    """Each view predicts the momentum network's embeddings of the others (Grill et al., NeurIPS
    2020).

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

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the loss of V image batches (B, 3, H, W)."""
        z = embed(self.encoder, self.projector, views, joint=False)
        predictions = torch.stack([self.predictor(view) for view in z])
        return Output({"loss_byol": regression_loss(predictions, self.targets(views))}, z.detach())


class MomentumINTL(MomentumMethod):
    """INTL with a momentum network: it embeds view 0, the online network all others.

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
        loss: Callable[[Tensor, Tensor], dict[str, Tensor]],
        momentum: float,
    ) -> None:
        super().__init__(encoder, projector, momentum)
        self.loss = loss

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the losses of V >= 2 image batches (B, 3, H, W); V - 1 embeddings to watch."""
        z = embed(self.encoder, self.projector, views[1:], joint=False)
        return Output(self.loss(z, self.targets(views[:1])[0]), z.detach())
