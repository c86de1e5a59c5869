"""Balanced, seeded, nested subsets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cwrgp.data.subsets import class_balanced_subset

COUNTS = {0: 300, 1: 7, 2: 40, 5: 1}
LABELS = [label for label, count in COUNTS.items() for _ in range(count)] + [-1] * 20


def drawn(fraction, seed=0, labels=LABELS):
    return class_balanced_subset(np.array(labels), fraction, seed)


def test_every_class_gives_its_share_and_at_least_one():
    for fraction, expected in {
        0.01: {0: 3, 1: 1, 2: 1, 5: 1},
        0.1: {0: 30, 1: 1, 2: 4, 5: 1},
        0.5: {0: 150, 1: 4, 2: 20, 5: 1},  # round(3.5) is 4
    }.items():
        chosen = drawn(fraction)
        assert Counter(LABELS[i] for i in chosen) == expected
        assert chosen == sorted(set(chosen))


def test_the_whole_is_all_that_have_labels():
    assert drawn(1.0) == list(range(sum(COUNTS.values())))


def test_a_pure_function_of_labels_fraction_and_seed():
    assert drawn(0.1) == drawn(0.1)
    assert drawn(0.1) != drawn(0.1, seed=1)
    # Of one class: where the others are does not matter.
    alone = drawn(0.1, labels=[0] * 300)
    assert [i for i in drawn(0.1) if i < 300] == alone


def test_one_percent_is_part_of_ten_percent():
    assert set(drawn(0.01)) < set(drawn(0.1)) < set(drawn(0.5))


def test_every_image_of_a_class_may_be_drawn():
    seen = {i for seed in range(40) for i in drawn(0.3, seed, [0] * 10)}
    assert seen == set(range(10))


def equal(fraction, seed=0, labels=LABELS):
    return class_balanced_subset(np.array(labels), fraction, seed, equal_counts=True)


@pytest.mark.slow
def test_equal_counts_differ_by_one_at_most_and_are_nested():
    labels = [label for label, size in enumerate((90, 100, 110, 100)) for _ in range(size)]
    labels += [-1] * 20
    for fraction, expected in ((0.01, [1] * 4), (0.1, [10] * 4), (0.107, [10, 10, 11, 11])):
        chosen = equal(fraction, labels=labels)
        assert sorted(Counter(labels[i] for i in chosen).values()) == expected
        assert chosen == sorted(set(chosen)) == equal(fraction, labels=labels)
    assert set(equal(0.01, 0, labels)) < set(equal(0.1, 0, labels)) < set(equal(0.107, 0, labels))
    assert equal(0.1, labels=labels) != equal(0.1, seed=1, labels=labels)
    # Which classes have one more is random.
    larger = {Counter(labels[i] for i in equal(0.1025, s, labels)).most_common(1)[0][0]
              for s in range(40)}  # fmt: skip
    assert larger == {0, 1, 2, 3}


def test_equal_counts_of_imagenet_are_as_many_as_published():
    labels = np.repeat(np.arange(1000), 1281)
    labels = np.concatenate([labels, np.zeros(167, dtype=np.int64)])
    for fraction, total, counts in ((0.01, 12_811, {12, 13}), (0.1, 128_116, {128, 129})):
        chosen = class_balanced_subset(labels, fraction, 0, equal_counts=True)
        assert len(chosen) == total and set(np.bincount(labels[chosen])) == counts


def test_a_class_that_is_too_small_for_equal_counts_is_an_error():
    with pytest.raises(ValueError, match="class 5 has 1 images, fewer than the . of each class"):
        equal(0.05)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction {fraction} is outside"):
        drawn(fraction)
