"""Seeds: one per purpose, and the generator that is restored."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from cwrgp.seeding import Stream, derive_seed, forked_generator, forked_generators

NUMBERS = (0, 1, 2, 3, 255, 2**32 - 1)


def test_no_two_purposes_share_a_seed():
    keys = [
        (stream, seed, *parts)
        for stream in Stream
        for seed in (*NUMBERS, 2**32, 2**64 + 1)
        for length in range(4)
        for parts in itertools.product(NUMBERS, repeat=length)
    ]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(set(keys)) == len(keys) > 15_000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_view_is_not_a_step_and_trailing_zeros_count():
    assert derive_seed(Stream.VIEW, 0, 3, 1) != derive_seed(Stream.STEP, 0, 3, 1)
    assert derive_seed(Stream.WEIGHTS, 0) != derive_seed(Stream.WEIGHTS, 0, 0)
    assert derive_seed(Stream.WEIGHTS, 0, 0) != derive_seed(Stream.WEIGHTS, 0, 0, 0)


def test_seeds_stay_the_same():
    """A checkpoint is resumed with the streams of the run that wrote it."""
    assert [int(stream) for stream in Stream] == list(range(1, 16))
    assert derive_seed(Stream.WEIGHTS, 0) == 5769891174451087230
    assert derive_seed(Stream.VIEW, 7, 3, 1) == 6161336324087136236


def test_parts_beyond_32_bits_are_a_defect():
    with pytest.raises(AssertionError):
        derive_seed(Stream.VIEW, 0, 2**32)


def test_the_default_generator_is_restored_also_after_an_error():
    before = torch.get_rng_state()
    with forked_generator(5):
        first = torch.rand(3)
    with pytest.raises(KeyError), forked_generator(5):
        assert torch.equal(torch.rand(3), first)
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(torch.rand(3, generator=torch.Generator().manual_seed(5)), first)


def test_all_default_generators_are_seeded_and_restored():
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    drawn = []
    for seed in (7, 7 + 2**32, 2**63 - 1, 7):
        with pytest.raises(KeyError), forked_generators(seed):
            drawn.append(draw())
            raise KeyError
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
    assert drawn[0] == drawn[3]
    # Torch's generator takes 32 bits of a seed at first, the others all of it.
    assert all(a[:2] != b[:2] for a, b in itertools.combinations(drawn[:3], 2))
