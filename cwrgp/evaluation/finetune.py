"""Semi-supervised fine-tuning of encoder and classifier on a part of the labels.

The protocol of Barlow Twins (Zbontar et al., 2021, appendix) and INTL (Weng et al., 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cwrgp.evaluation.linear import cosine
from cwrgp.evaluation.supervised import TrainingSettings, train_supervised


def fine_tune(
    encoder: nn.Module,
    classifier: nn.Linear,
    batches: Iterator[list[Tensor]],
    *,
    lr_encoder: float,
    lr_classifier: float,
    weight_decay: float,
    settings: TrainingSettings,
) -> None:
    """Trains both in place by SGD (momentum 0.9). The rates follow a cosine to 0, by epochs.

    Args:
        encoder: in training mode; its BatchNorm must be synchronised where there are several
            processes.
        classifier: (B, F) -> (B, classes).
        batches: (images, labels) of each step, the same number on every process.
        lr_encoder: learning rate of epoch 0.
        lr_classifier: likewise.
        weight_decay: of all parameters.
        settings: epochs, batches and number format.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    rates: list[Callable[[int], float]] = [
        cosine(lr_classifier, 0.0, settings.epochs),
        cosine(lr_encoder, 0.0, settings.epochs),
    ]
    optimizer = torch.optim.SGD(
        [
            {"params": list(classifier.parameters()), "lr": lr_classifier},
            {"params": list(encoder.parameters()), "lr": lr_encoder},
        ],
        momentum=0.9,
        weight_decay=weight_decay,
        fused=True,
    )
    train_supervised(
        encoder,
        classifier,
        optimizer,
        batches,
        learning_rates=lambda epoch: [rate(epoch) for rate in rates],
        frozen=False,
        settings=settings,
    )
