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


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction {fraction} is outside"):
        drawn(fraction)
