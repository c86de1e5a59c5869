"""Supervised training in epochs: of a classifier alone, or of the encoder too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cwrgp.comm import get_world_size


@dataclass(frozen=True)
class TrainingSettings:
    """The settings that linear probes on images and fine-tuning share.

    Attributes:
        batch_sizes: samples in each global batch of an epoch.
        epochs: number of epochs.
        normalize: uint8 batch -> network input.
        device: where the networks are.
        autocast: the context of the encoder; the classifier and the loss are in fp32.
        scaler: of the loss.
        after_epoch: called with each epoch and its mean loss, on every process.
    """

    batch_sizes: list[int]
    epochs: int
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    autocast: torch.autocast
    scaler: torch.amp.GradScaler
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None


def train_supervised(
    encoder: nn.Module,
    classifier: nn.Linear,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    *,
    learning_rates: Callable[[int], list[float]],
    frozen: bool,
    settings: TrainingSettings,
) -> None:
    """Minimises the cross-entropy of the global batch, the mean over its samples, in place.

    Args:
        encoder: (B, 3, H, W) -> (B, F).
        classifier: (B, F) -> (B, classes).
        optimizer: over the parameters that are trained.
        batches: this process's part of each batch: uint8 images (B, 3, H, W) and int64 labels
            (B,), of which -1 does not count.
        learning_rates: of an epoch, one for each group of the optimizer.
        frozen: the encoder is in evaluation mode and does not change.
        settings: epochs, batches and number format.

    Raises:
        FloatingPointError: an epoch's loss is not finite.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for epoch in range(settings.epochs):
        encoder.train(not frozen)
        for group, rate in zip(optimizer.param_groups, learning_rates(epoch), strict=True):
            group["lr"] = rate
        total = torch.zeros((), device=settings.device)
        for size in settings.batch_sizes:
            images, labels = next(batches)
            images = settings.normalize(images.to(settings.device, non_blocking=True))
            with torch.set_grad_enabled(not frozen), settings.autocast:
                features = encoder(images)
            scores = classifier(features.float())
            labels = labels.to(settings.device, non_blocking=True)
            # The sum over the global size is correct for parts of any size, empty ones included.
            loss = F.cross_entropy(scores, labels, reduction="sum", ignore_index=-1) / size
            optimizer.zero_grad()
            settings.scaler.scale(loss).backward()
            sum_gradients(trained)
            settings.scaler.step(optimizer)
            settings.scaler.update()
            total += loss.detach() * size
        if get_world_size() > 1:
            dist.all_reduce(total)
        mean = total.item() / sum(settings.batch_sizes)
        if not math.isfinite(mean):
            rates = ", ".join(f"{rate:g}" for rate in learning_rates(epoch))
            raise FloatingPointError(
                f"the loss is {mean} in epoch {epoch + 1}; lower the learning rate, now {rates}"
            )
        settings.after_epoch(epoch, mean)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over all processes."""
    if get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = parameters_to_vector(gradients)
    dist.all_reduce(together)
    vector_to_parameters(together, gradients)
