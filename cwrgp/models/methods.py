"""A method: encoder, heads and loss as one module that maps views to losses.

The encoder runs once per view, so views may differ in image size, and BatchNorm takes its
statistics per view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cwrgp.losses.base import Loss
from cwrgp.losses.regression import regression_loss
from cwrgp.profiling import part
from cwrgp.volatility import Volatility
from cwrgp.whitening import at_least_float32


class Output(NamedTuple):
    """The result of a training step.

    Attributes:
        losses: named scalars; their sum is minimised.
        embeddings: (V, B, D), detached, for monitoring.
        features: (B, F), of the encoder for the first of these views, likewise; None: not known.
    """

    losses: dict[str, Tensor]
    embeddings: Tensor
    features: Tensor | None = None


class Method(nn.Module):
    """What the training loop knows of a method: views -> :class:`Output`, and hooks."""

    encoder: nn.Module
    projector: nn.Module

    @property
    def needs_full_rank(self) -> bool:
        """Whether the loss is defined for embeddings (n, D) of rank D only."""
        return False

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Called exactly once before every step, for what changes in the course of a run.

        A momentum network may move here, so two calls for one step are not the same as one.

        Args:
            step: the step that comes next, from 0.
            total_steps: steps in the run.
            steps_per_epoch: steps in an epoch.
        """

    def update_target(self) -> None:
        """Called after every step of the optimizer, for momentum networks that move there."""

    def smallest_eigenvalue(self, embeddings: Tensor) -> Tensor | None:
        """The smallest eigenvalue of the covariances that the loss inverts.

        Args:
            embeddings: (V, B, D).

        Returns:
            A scalar; None where the loss inverts no covariance.
        """
        return None

    def target_volatility(self, before: Tensor, after: Tensor) -> Volatility | None:
        """How far the whitened targets of a batch move when the network is updated.

        Args:
            before: (N, D), embeddings of samples that can be whitened together.
            after: of the same samples after the update, likewise.

        Returns:
            See :meth:`cwrgp.losses.base.Loss.target_volatility`; None where the loss inverts no
            covariance.
        """
        return None

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        """The losses when the views of a sample have nothing in common.

        Args:
            batch_size: samples that the loss sees, over all processes.
            num_views: V.
            num_channels: D, of the embedding; None: not known.

        Returns:
            Name -> value, for the losses whose value depends on the arguments only, see
            :meth:`cwrgp.losses.base.Loss.value_for_unrelated`.
        """
        return {}

    def aligned_loss(self, batch_size: int, *, num_views: int = 2) -> float:
        """The sum of the losses that :meth:`chance_losses` names, where the views of a sample are
        equal; see :meth:`cwrgp.losses.base.Loss.value_for_aligned`.

        Args:
            batch_size: samples that the loss sees, over all processes.
            num_views: V.
        """
        return 0.0


class Embedded(NamedTuple):
    """What :func:`embed` computes, in fp32 at least.

    Attributes:
        embeddings: (V, B, D).
        features: (B, F), of the encoder for the first view, detached.
    """

    embeddings: Tensor
    features: Tensor


def embed(
    encoder: nn.Module, projector: nn.Module, views: Sequence[Tensor], *, joint: bool
) -> Embedded:
    """Embeds V image batches (B, 3, H, W).

    Args:
        encoder: (B, 3, H, W) -> (B, F), run on each view.
        projector: (M, F) -> (M, D).
        views: the images; H and W may differ from view to view.
        joint: run the projector once on all views, so that its BatchNorm takes its statistics over
            all of them; otherwise once per view.
    """
    features = [encoder(view) for view in views]
    if joint:
        z = projector(torch.cat(features)).unflatten(0, (len(views), -1))
    else:
        z = torch.stack([projector(feature) for feature in features])
    return Embedded(at_least_float32(z), at_least_float32(features[0].detach()))


class JointEmbedding(Method):
    """Symmetric joint embedding: encoder, projector, and a loss over the embeddings of all views.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        projector: (M, F) -> (M, D).
        loss: (V, B, D) -> scalar, or a dictionary of named scalars.
        name: name of the method, for a loss that is a scalar.
        joint_projector: see :func:`embed`; true in the experiments of W-MSE and CW-RGP.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        loss: Loss,
        name: str = "cwrgp",
        joint_projector: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.loss = loss
        self.name = name
        self.joint_projector = joint_projector

    @property
    def needs_full_rank(self) -> bool:
        """That of the loss."""
        return self.loss.needs_full_rank

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Passes the progress of the run on to the loss."""
        self.loss.set_progress(step=step, total_steps=total_steps, steps_per_epoch=steps_per_epoch)

    def smallest_eigenvalue(self, embeddings: Tensor) -> Tensor | None:
        """That of the loss."""
        return self.loss.smallest_eigenvalue(embeddings)

    def target_volatility(self, before: Tensor, after: Tensor) -> Volatility | None:
        """That of the loss."""
        return self.loss.target_volatility(before, after)

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        """That of the loss."""
        value = self.loss.value_for_unrelated(
            batch_size, num_views=num_views, num_channels=num_channels
        )
        return {} if value is None else {self.loss.alignment or f"loss_{self.name}": value}

    def aligned_loss(self, batch_size: int, *, num_views: int = 2) -> float:
        """That of the loss."""
        return self.loss.value_for_aligned(batch_size, num_views=num_views)

    def forward(self, views: Sequence[Tensor]) -> Output:
        """Computes the losses of a batch.

        Args:
            views: V normalised image batches (B, 3, H, W) of the same B samples.
        """
        z, features = embed(self.encoder, self.projector, views, joint=self.joint_projector)
        with part("loss"):
            loss = self.loss(z)
        losses = loss if isinstance(loss, dict) else {f"loss_{self.name}": loss}
        return Output(losses, z.detach(), features)


class SimSiam(Method):
    """Each view predicts the others, which get no gradient (Chen and He, CVPR 2021).

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
        z, features = embed(self.encoder, self.projector, views, joint=False)
        predictions = torch.stack([self.predictor(view) for view in z])
        with part("loss"):
            # Halved: the gradient is that of the paper's -cos, to which its learning rates belong.
            loss = regression_loss(predictions, z) / 2
        return Output({"loss_simsiam": loss}, z.detach(), features)

    def chance_losses(
        self, batch_size: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> dict[str, float]:
        """1, since the mean cosine is 0."""
        return {"loss_simsiam": 1.0}
