"""Randomness as a pure function of what it is for, so that a run has no generator state to save."""

from __future__ import annotations

import numpy as np


def derive_seed(*parts: int) -> int:
    """A seed for the thing that ``parts`` name, such as (run's seed, epoch, image).

    Args:
        parts: non-negative integers; tuples give statistically independent streams, unless they
            differ in zeros at their ends only.

    Returns:
        An integer in [0, 2^63), good for ``torch.Generator.manual_seed``.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
