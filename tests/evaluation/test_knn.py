"""k-NN accuracy against a loop over samples."""

from __future__ import annotations

import pytest
import torch

from cwrgp.evaluation.knn import knn_accuracy


def oracle(train, train_labels, queries, labels, k, exclude_self=False):
    correct = 0
    for i, query in enumerate(queries.tolist()):
        distances = [
            (sum((a - b) ** 2 for a, b in zip(query, row, strict=True)), j)
            for j, row in enumerate(train.tolist())
            if not (exclude_self and i == j)
        ]
        votes = [int(train_labels[j]) for _, j in sorted(distances)[:k]]
        winner = max(sorted(set(votes)), key=votes.count)
        correct += winner == int(labels[i])
    return 100 * correct / len(queries)


def test_equals_the_oracle_whatever_the_chunk():
    torch.manual_seed(0)
    train, labels = torch.randn(40, 3, dtype=torch.float64), torch.randint(0, 4, (40,))
    queries, answers = torch.randn(25, 3, dtype=torch.float64), torch.randint(0, 4, (25,))
    for k in (1, 5):
        expected = oracle(train, labels, queries, answers, k)
        for chunk in (7, 1024):
            assert knn_accuracy(train, labels, queries, answers, k=k, chunk=chunk) == expected
        alone = oracle(train, labels, train, labels, k, exclude_self=True)
        assert knn_accuracy(train, labels, k=k, chunk=7) == alone


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match="k 5 is more than the 4 labelled images that can vote"):
        knn_accuracy(torch.randn(5, 2), torch.zeros(5, dtype=torch.long))


def test_features_far_from_the_origin_have_the_same_neighbours():
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(400) % 10
    assert knn_accuracy(x + 3000.0, labels) == knn_accuracy((x + 3000.0).double(), labels)
