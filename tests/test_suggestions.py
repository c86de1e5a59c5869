"""What is said of a name that is not known."""

from __future__ import annotations

from cwrgp.suggestions import suggest


def test_close_names_come_first_and_others_are_left_out() -> None:
    known = ["SOLVER.STEPS", "SOLVER.EPOCHS", "SEED"]
    hint = suggest("SOLVER.EPOCH", known, "none")
    assert hint == "did you mean SOLVER.EPOCHS or SOLVER.STEPS?"
    assert suggest("SOLVER.EPOCH", known, "none", cutoff=0.9) == "did you mean SOLVER.EPOCHS?"
    assert suggest("SOLVER.EPOCH", known, "none", cutoff=0.9, show=str.lower) == (
        "did you mean solver.epochs?"
    )
    assert suggest("xyz", known, "none") == "none"
