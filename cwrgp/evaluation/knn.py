"""k-nearest-neighbour accuracy, the paper's probe: Euclidean distance, majority vote."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    k: int = 5,
    chunk: int = 1024,
) -> float:
    """Accuracy of a majority vote of the k nearest training samples (5-NN in the paper).

    A tie goes to the smallest label.

    Args:
        train_features: (n, F).
        train_labels: int64 (n,).
        features: (m, F), the queries. None: leave-one-out; each training sample queries the rest.
        labels: int64 (m,).
        k: number of neighbours.
        chunk: queries at a time, which limits the memory to chunk x n distances.

    Returns:
        Accuracy in percent.

    Raises:
        ValueError: fewer than k neighbours.
    """
    leave_one_out = features is None
    queries = train_features if features is None else features
    answers = train_labels if labels is None else labels
    check_neighbours(k, len(train_features) - leave_one_out)
    num_classes = int(train_labels.max()) + 1
    # cdist computes |a|^2 - 2ab + |b|^2, which loses digits far from the origin.
    origin = train_features.mean(0)
    train_features, queries = train_features - origin, queries - origin
    correct = 0
    for start in range(0, len(queries), chunk):
        distances = torch.cdist(queries[start : start + chunk], train_features)
        if leave_one_out:
            rows = torch.arange(len(distances), device=distances.device)
            distances[rows, start + rows] = torch.inf
        neighbours = train_labels[distances.topk(k, largest=False).indices]  # (chunk, k)
        votes = F.one_hot(neighbours, num_classes).sum(1)
        correct += int((votes.argmax(1) == answers[start : start + chunk]).sum())
    return 100 * correct / len(queries)


def check_neighbours(k: int, num_neighbours: int) -> None:
    """Raises ValueError where fewer than k neighbours can vote."""
    if num_neighbours < k:
        raise ValueError(f"k {k} is more than the {num_neighbours} labelled images that can vote")
