"""Linear classifiers on a frozen encoder: on features extracted once, or on augmented images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    ExponentialParamScheduler,
    MultiStepParamScheduler,
)
from torch import Tensor, nn
from torch.nn import functional as F

from cwrgp.data.samplers import epoch_batches
from cwrgp.engine.optimizers import build_optimizer
from cwrgp.evaluation.supervised import TrainingSettings, train_supervised
from cwrgp.seeding import Stream, derive_seed


def exponential(first: float, last: float, epochs: int) -> Callable[[int], float]:
    """The learning rate of an epoch, which decays exponentially.

    Args:
        first: value in epoch 0.
        last: value in epoch ``epochs - 1``.
        epochs: number of epochs.
    """
    scheduler = ExponentialParamScheduler(first, last / first)
    return lambda epoch: scheduler(epoch / max(1, epochs - 1))


def cosine(first: float, last: float, epochs: int) -> Callable[[int], float]:
    """The learning rate of an epoch: last + (first - last) (1 + cos(pi epoch / epochs)) / 2."""
    scheduler = CosineParamScheduler(first, last)
    return lambda epoch: scheduler(epoch / epochs)


def stepwise(first: float, steps: Sequence[int], epochs: int) -> Callable[[int], float]:
    """The learning rate of an epoch, divided by 10 at each of ``steps``.

    Args:
        first: value in epoch 0.
        steps: epochs in ascending order, between 0 and ``epochs``.
        epochs: number of epochs.
    """
    values = [first * 0.1**i for i in range(len(steps) + 1)]
    scheduler = MultiStepParamScheduler(values, num_updates=epochs, milestones=list(steps))
    return lambda epoch: scheduler(epoch / epochs)


def build_classifier(
    num_features: int, num_classes: int, *, seed: int, std: float | None = None
) -> nn.Linear:
    """An untrained linear classifier.

    Args:
        num_features: F.
        num_classes: number of outputs.
        seed: of the weights.
        std: weights from N(0, std^2) and zero biases, as in the ImageNet protocols (0.01 in MoCo);
            None: torch's default, uniform within 1 / sqrt(F).
    """
    generator = torch.Generator().manual_seed(derive_seed(Stream.PROBE_WEIGHTS, seed))
    classifier = nn.Linear(num_features, num_classes)
    if std is not None:
        nn.init.normal_(classifier.weight, std=std, generator=generator)
        nn.init.zeros_(classifier.bias)
        return classifier
    bound = num_features**-0.5
    for parameter in (classifier.weight, classifier.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return classifier


def train_on_features(
    classifier: nn.Linear,
    features: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: Callable[[int], float],
    weight_decay: float,
    seed: int,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Trains a classifier by Adam and cross-entropy, in place: the paper's probe of small images.

    Every process does the same computation on the same features.

    Args:
        classifier: on the features' device, of their dtype.
        features: (n, F).
        labels: int64 (n,).
        epochs: number of epochs.
        batch_size: the last batch of an epoch may be smaller.
        learning_rate: of an epoch.
        weight_decay: weight of the L2 penalty.
        seed: of the order.
        report: called with each epoch and its mean loss.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = build_optimizer(
        "adam", classifier, lr=learning_rate(0), weight_decay=weight_decay
    )  # fmt: skip
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch)
        total = features.new_zeros(())
        for batch in epoch_batches(len(features), batch_size, seed=seed, epoch=epoch):
            chosen = batch.to(features.device)
            loss = F.cross_entropy(classifier(features[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        mean = total.item() / len(features)
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the loss of the linear classifier is {mean} in epoch {epoch + 1}; "
                f"lower the learning rate, now {learning_rate(epoch):g}"
            )
        report(epoch, mean)


def train_on_images(
    encoder: nn.Module,
    classifier: nn.Linear,
    batches: Iterator[list[Tensor]],
    *,
    optimizer: str,
    learning_rate: Callable[[int], float],
    weight_decay: float,
    settings: TrainingSettings,
) -> None:
    """Trains a classifier on augmented images and a frozen encoder: ImageNet's linear protocol.

    Args:
        encoder: in evaluation mode, without gradient.
        classifier: trained in place.
        batches: (images, labels) of each step.
        optimizer: "sgd" or "larc", both with momentum 0.9; "larc" with a trust coefficient of
            0.001 and without clipping.
        learning_rate: of an epoch.
        weight_decay: of the weights and the bias.
        settings: epochs, batches and number format.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    solver = build_optimizer(
        optimizer,
        classifier,
        lr=learning_rate(0),
        weight_decay=weight_decay,
        momentum=0.9,
        trust=0.001,
    )
    train_supervised(
        encoder.eval(),
        classifier,
        solver,
        batches,
        learning_rates=lambda epoch: [learning_rate(epoch)],
        frozen=True,
        settings=settings,
    )
