"""Semi-supervised fine-tuning: encoder and classifier together, on a part of the labels.

The protocol of Barlow Twins (Zbontar et al., 2021, appendix) and INTL (Weng et al., 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cwrgp.evaluation.linear import cosine
from cwrgp.evaluation.supervised import Supervised, train_supervised


def fine_tune(
    encoder: nn.Module,
    classifier: nn.Linear,
    batches: Iterator[list[Tensor]],
    *,
    lr_encoder: float,
    lr_classifier: float,
    weight_decay: float,
    how: Supervised,
) -> None:
    """Trains both with SGD (momentum 0.9) and a cosine to 0, a value an epoch, in place.

    Args:
        encoder: in training mode; its BatchNorm must be synchronised where there are several
            processes.
        classifier: (B, F) -> (B, classes).
        batches: (images, labels) a step, equally many on every process.
        lr_encoder: of epoch 0.
        lr_classifier: of epoch 0.
        weight_decay: of all parameters.
        how: what a step is.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    rates: list[Callable[[int], float]] = [
        cosine(lr_classifier, 0.0, how.epochs),
        cosine(lr_encoder, 0.0, how.epochs),
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
        how=how,
    )
