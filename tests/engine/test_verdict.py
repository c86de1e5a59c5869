"""The state of a run from one record: each sign on its own, and each threshold from both sides."""

from __future__ import annotations

import dataclasses

import pytest

from cwrgp.engine.verdict import Evidence, State, judge

HEALTHY = Evidence(
    step=99,
    std=0.8,
    effective_rank=10,
    first_effective_rank=30,
    numerical_rank=64,
    full_rank=64,
    needs_full_rank=False,
    share=0.85,
)
COMPLETE, DIMENSIONAL = State.COMPLETE_COLLAPSE, State.DIMENSIONAL_COLLAPSE
STALLED = {"share": 0.94}  # neither learning nor surely at chance
STUCK = {**STALLED, "step": 199, "earlier_share": 0.95}
PAIR = {**STALLED, "effective_rank": 1, "first_effective_rank": 1, "numerical_rank": 1}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.HEALTHY),
        ({"share": None}, State.HEALTHY),
        ({"step": 78}, None),
        ({"share": 0.91}, None),
        # Ranks are no alarm while the loss falls
        ({"effective_rank": 1.6, "numerical_rank": 7, "needs_full_rank": True}, State.HEALTHY),
        ({"effective_rank": 1.2, "numerical_rank": 7, "needs_full_rank": True}, None),
        # unless nothing else is left
        ({"share": 0.1, "numerical_rank": 6}, DIMENSIONAL),
        ({"share": 0.1, "numerical_rank": 6, "full_rank": 255}, DIMENSIONAL),
        ({"share": 0.1, "numerical_rank": 7, "full_rank": 255}, State.HEALTHY),
        ({"share": 0.1, "numerical_rank": 3, "full_rank": 31}, DIMENSIONAL),
        ({"share": 0.1, "numerical_rank": 4, "full_rank": 31}, State.HEALTHY),
        # A falling loss that leaves one dimension is not called healthy
        ({"share": 0.1, "effective_rank": 1.4}, None),
        ({"std": 0.04, "numerical_rank": 6}, COMPLETE),
        ({"std": 0.04}, COMPLETE),
        ({"std": 0.04, "step": 0, "share": None}, COMPLETE),
        ({"std": 0.06}, State.HEALTHY),
        ({**STALLED, "effective_rank": 10}, None),
        ({**STALLED, "effective_rank": 1.4, "first_effective_rank": None}, DIMENSIONAL),
        ({**STALLED, "effective_rank": 1.6, "first_effective_rank": None}, None),
        ({"share": None, "effective_rank": 1.4}, DIMENSIONAL),
        ({**STALLED, "step": 0, "effective_rank": 1.4}, DIMENSIONAL),
        ({"share": 0.91, "effective_rank": 1.4}, None),
        ({"share": 0.91, "effective_rank": 1.4, "step": 199}, State.CHANCE),
        ({**STALLED, "numerical_rank": 57, "needs_full_rank": True}, DIMENSIONAL),
        ({**STALLED, "numerical_rank": 58, "needs_full_rank": True}, None),
        ({**STALLED, "numerical_rank": 20}, None),
        ({**STUCK}, State.CHANCE),
        ({**STUCK, "step": 198}, None),
        ({**STUCK, "effective_rank": 16}, None),
        ({**STUCK, "share": 0.91, "earlier_share": 0.91}, None),
        ({**STUCK, "earlier_share": 0.96}, None),
        ({**STUCK, "earlier_share": None}, None),
        ({"share": 0.96}, State.CHANCE),
        ({"share": 0.96, "step": 58}, None),
        ({"share": 0.98, "step": 39}, State.CHANCE),
        ({"share": 0.98, "step": 38}, None),
        ({"share": 0.96, "effective_rank": 16}, None),
        # Late, whatever the ranks are
        ({"share": 0.98, "effective_rank": 30, "step": 999}, State.CHANCE),
        ({"share": 0.98, "first_effective_rank": None, "step": 999}, State.CHANCE),
        ({"share": 0.98, "effective_rank": 30, "step": 998}, None),
        ({"share": 0.96, "effective_rank": 30, "step": 999}, None),
        # Two samples span one dimension
        ({**PAIR, "full_rank": 1}, None),
        ({**PAIR, "full_rank": 2}, DIMENSIONAL),
        ({"share": 0.96, "first_effective_rank": None}, None),
        ({**STALLED, "effective_rank": 2.9}, State.CHANCE),
        ({**STALLED, "effective_rank": 3.1}, None),
    ],
)
def test_the_state(changes, state):
    assert judge(dataclasses.replace(HEALTHY, **changes)) is state
