"""The order of the data: complete, disjoint, and the same wherever a run starts."""

from __future__ import annotations

import pytest

from cwrgp.data.samplers import StepSampler


def steps(size=22, batch=4, start=0, total=15, seed=0, rank=0, world=1):
    return list(
        StepSampler(
            size, batch, start_step=start, total_steps=total, seed=seed, rank=rank, world_size=world
        )
    )


def test_an_epoch_is_a_permutation_less_what_does_not_fill_a_batch():
    batches = steps()
    for epoch in range(3):
        keys = [key for batch in batches[epoch * 5 : epoch * 5 + 5] for key in batch]
        assert {e for e, _ in keys} == {epoch}
        assert len({i for _, i in keys}) == 20 and all(0 <= i < 22 for _, i in keys)
    assert batches[0] != batches[5]
    assert batches != steps(seed=1)


@pytest.mark.parametrize("start", [1, 5, 7])
def test_a_later_start_sees_the_same_batches(start):
    assert steps(start=start) == steps()[start:]


def test_processes_share_each_global_batch():
    whole = steps()
    parts = [steps(rank=rank, world=2) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
