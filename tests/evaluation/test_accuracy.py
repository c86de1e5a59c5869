"""Top-1 and top-5 against sorting by hand."""

from __future__ import annotations

import torch
from torch import nn

from cwrgp.evaluation.accuracy import Accuracy, classifier_accuracy, topk_correct


def test_the_label_is_among_the_k_best():
    torch.manual_seed(0)
    scores, labels = torch.randn(60, 9), torch.randint(0, 9, (60,))
    for k in (1, 2, 5, 8):
        expected = 0
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
            expected += sum(other > row[label] for other in row) < k
        assert 0 < topk_correct(scores, labels, k) == expected < 60
    assert topk_correct(scores[:, :4], labels % 4, 5) == 60


def test_accuracy_of_a_classifier_in_chunks():
    classifier = nn.Identity()
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]]).repeat(4, 1)
    labels = torch.tensor([0, 4, 5, 6])
    for chunk in (1, 3, 100):
        assert classifier_accuracy(classifier, scores, labels, chunk=chunk) == Accuracy(25.0, 50.0)
