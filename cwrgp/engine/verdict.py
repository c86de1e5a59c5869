"""What the statistics of a run say of its state: a pure function of one record.

The thresholds are held against runs of CW-RGP and PCA whitening in these states
(``tests/engine/test_states.py``) and the records of experiments (``docs/pretraining.md``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# sqrt(D) times the standard deviation of normalised embeddings, which is 1 for isotropic ones.
_COLLAPSED_STD = 0.05
# An effective rank below which one dimension has nearly all variance.
_ONE_DIMENSION = 1.5
# Share of the rank that a loss which whitens the batch demands.
_LOST_RANK = 0.9
# Share of the rank, and dimensions, below which a loss that falls does so by the collapse, as with
# shrinkage of the covariance. Healthy embeddings of large batches have a small share, too.
_LEFT_RANK, _LEFT_DIMENSIONS = 0.1, 7
# (steps, share of the loss of unrelated embeddings): after so many steps a run below this share
# learns, whatever its ranks do: they fall at first in healthy runs, too.
_LEARNING = ((200, 0.9), (0, 0.92))
# (steps, share): after so many steps a run above this share has learnt little or nothing, once the
# effective rank has fallen below half of the first one.
_CHANCE = ((60, 0.95), (40, 0.97))
_FALLEN_RANK = 0.5
# The same after more steps for a lower share that hardly falls any more: it passes through such
# shares in a long warm-up.
_STUCK_STEPS, _STUCK_SHARE, _STUCK_FALL = 200, 0.92, 0.015
# What is left of the first effective rank in a run that does not learn, after the fewest steps.
_LITTLE_RANK = 0.1
# Steps after which, and a share above which, nothing has been learnt, whatever the ranks: far too
# small a rate leaves them as they were, and a resumed run does not know the first one.
_LATE_STEPS, _LATE_CHANCE = 1000, 0.97
# Steps after which, and a share below which, a run is called healthy.
_SETTLED_STEPS, _HEALTHY = 80, 0.9


class State(enum.Enum):
    """The state of a run."""

    COMPLETE_COLLAPSE = "complete collapse"
    DIMENSIONAL_COLLAPSE = "dimensional collapse"
    CHANCE = "loss at chance level"
    HEALTHY = "healthy"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a run at a record.

    Attributes:
        step: its number.
        std: of the embeddings, see :func:`cwrgp.similarity.feature_std`.
        effective_rank: of the embeddings.
        first_effective_rank: in the first step of the run; None: not known, in a resumed run.
        numerical_rank: of the embeddings.
        full_rank: the largest that numerical_rank can be.
        needs_full_rank: whether the loss is defined for embeddings of full rank only.
        share: of the loss of unrelated embeddings that the loss is at, both less that of equal
            views; None: that is not known.
        earlier_share: the same 100 steps or more before; None: not known.
    """

    step: int
    std: float
    effective_rank: float
    first_effective_rank: float | None
    numerical_rank: float
    full_rank: int
    needs_full_rank: bool
    share: float | None
    earlier_share: float | None = None


def judge(evidence: Evidence) -> State | None:
    """The state that the evidence shows, None where it is too early or too close to tell."""
    e = evidence
    if e.std < _COLLAPSED_STD:
        return State.COMPLETE_COLLAPSE
    if e.numerical_rank < min(_LEFT_RANK * e.full_rank, _LEFT_DIMENSIONS):
        return State.DIMENSIONAL_COLLAPSE
    # Two samples span one dimension.
    has_one_dimension = e.effective_rank < _ONE_DIMENSION and e.full_rank > 1
    learns = e.share is not None and e.share < _bound(_LEARNING, e.step)
    if not learns:
        if e.needs_full_rank and e.numerical_rank < _LOST_RANK * e.full_rank:
            return State.DIMENSIONAL_COLLAPSE
        if _is_at_chance(e):
            return State.CHANCE
        if has_one_dimension:
            return State.DIMENSIONAL_COLLAPSE
    settled = e.step + 1 >= _SETTLED_STEPS and (e.share is None or e.share < _HEALTHY)
    return State.HEALTHY if settled and not has_one_dimension else None


def _is_at_chance(e: Evidence) -> bool:
    if e.share is None:
        return False
    if e.step + 1 >= _LATE_STEPS and e.share > _LATE_CHANCE:
        return True
    if e.first_effective_rank is None or e.step + 1 < _CHANCE[-1][0]:
        return False
    left = e.effective_rank / e.first_effective_rank
    if left < _LITTLE_RANK:
        return True
    stuck = (
        e.step + 1 >= _STUCK_STEPS
        and e.share > _STUCK_SHARE
        and e.earlier_share is not None
        and e.earlier_share - e.share < _STUCK_FALL
    )
    return left < _FALLEN_RANK and (stuck or e.share > _bound(_CHANCE, e.step))


def _bound(bounds: tuple[tuple[int, float], ...], step: int) -> float:
    """The share that holds at a step."""
    return next(share for steps, share in bounds if step + 1 >= steps)
