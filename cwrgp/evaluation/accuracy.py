"""Top-1 and top-5 accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent; ``top5`` is None for a probe that does not rank the classes."""

    top1: float
    top5: float | None


def topk_correct(scores: Tensor, labels: Tensor, k: int) -> int:
    """Number of samples whose label is among the k classes with the highest scores.

    Args:
        scores: (n, classes).
        labels: int64 (n,).
        k: with fewer classes than k, every sample counts.
    """
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return int((best == labels[:, None]).any(1).sum())


@torch.no_grad()
def classifier_accuracy(
    classifier: nn.Module, features: Tensor, labels: Tensor, *, chunk: int = 8192
) -> Accuracy:
    """Top-1 and top-5 accuracy of a classifier of features.

    Args:
        classifier: (B, F) -> (B, classes).
        features: (n, F), n > 0.
        labels: int64 (n,).
        chunk: samples at a time.
    """
    correct = {1: 0, 5: 0}
    for x, y in zip(features.split(chunk), labels.split(chunk), strict=True):
        scores = classifier(x)
        for k in correct:
            correct[k] += topk_correct(scores, y, k)
    return Accuracy(100 * correct[1] / len(labels), 100 * correct[5] / len(labels))
