"""Arms, cells, and plans that are not mixed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from d2_transfer.trials.plan import (
    Arm,
    Plan,
    check_same,
    parse_arms,
    parse_numbers,
    read_plan,
    write_plan,
)


def plan(**changes: object) -> Plan:
    arms = (Arm("random", ("random",)), Arm("ours", ("a.pkl", "b.pkl")))
    files = {"random": ("", ""), "a.pkl": ("/x/a.pkl", "aa"), "b.pkl": ("/x/b.pkl", "bb")}
    given = Plan(
        "protocol", "SOLVER:\n  MAX_ITER: 3\n", ("SOLVER.MAX_ITER 3",), arms, (1, 2), files
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def test_cells_go_seed_by_seed_and_each_seed_has_its_weights() -> None:
    cells = [(c.number, c.name, c.weights) for c in plan().cells]
    assert cells == [
        (1, "random-1", ""),
        (2, "ours-1", "/x/a.pkl"),
        (3, "random-2", ""),
        (4, "ours-2", "/x/b.pkl"),
    ]
    assert plan().cell(4).seed == 2
    for number in (0, 5):
        with pytest.raises(ValueError, match=f"cell {number} is not one of 1 to 4"):
            plan().cell(number)


def test_a_sweep_comes_first_and_fractions_go_together() -> None:
    given = plan(seeds=(1, 2), fractions=(10.0, 100.0), rates=(0.01, 0.02))
    names = [cell.name for cell in given.cells]
    assert names[:4] == ["random@rate0.01", "random@rate0.02", "ours@rate0.01", "ours@rate0.02"]
    assert names[4:8] == ["random@10percent-1", "ours@10percent-1", "random-1", "ours-1"]
    assert len(names) == len(set(names)) == 12
    assert [c.number for c in given.cells] == list(range(1, 13))
    assert {c.seed for c in given.cells[:4]} == {1} and given.cells[2].weights == "/x/a.pkl"
    assert [c.name for c in given.trial_cells()] == ["random-1", "ours-1", "random-2", "ours-2"]
    assert [c.weights for c in given.trial_cells(10)] == ["", "/x/a.pkl", "", "/x/b.pkl"]


def test_numbers_are_parsed() -> None:
    assert parse_numbers("fractions", "10,1,2.5", high=100) == (1, 2.5, 10)
    for text in ("", "a", "0,1", "1,,2", "101", "nan", "-1"):
        message = re.escape(f"fractions {text!r} are not numbers above 0 and at most 100")
        with pytest.raises(ValueError, match=message):
            parse_numbers("fractions", text, high=100)
    with pytest.raises(ValueError, match="lr-sweep '1,1.0' has a number twice"):
        parse_numbers("lr-sweep", "1,1.0")


def test_arms_are_parsed() -> None:
    arms = parse_arms(["random=random", "ours=a.pkl,b.pkl,c.pkl", "x=cwrgp://n"], 3)
    assert [arm.repeated for arm in arms] == [False, True, False]
    assert arms[1] == Arm("ours", ("a.pkl", "b.pkl", "c.pkl"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.pkl"], "weights 'a.pkl': give NAME=FILE"),
        (["a b=c"], "weights 'a b=c': give NAME=FILE"),
        (["a=b,,c"], "FILE 'random' for random weights"),
        (["a=b", "a=c"], "weights 'a=c': the name 'a' is given twice"),
        (["a=b,c"], "weights 'a': 2 files for 3 trials; give one for all or one for each"),
    ],
)
def test_wrong_arms_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_arms(words, 3)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    write_plan(tmp_path / "new", plan())
    assert read_plan(tmp_path / "new") == plan()
    path = tmp_path / "new" / "plan.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(ValueError, match="of another version; choose another folder, or"):
        read_plan(tmp_path / "new")


def test_more_seeds_and_arms_go_on_and_anything_else_is_refused(tmp_path: Path) -> None:
    check_same(tmp_path, plan(), plan(seeds=(1, 2, 3)))
    more = Arm("more", ("random",))
    check_same(tmp_path, plan(), plan(arms=(*plan().arms, more)))
    check_same(tmp_path, plan(), plan(fractions=(10.0, 100.0)))
    with pytest.raises(ValueError, match=r"with another lr-sweep \(0.01,0.02\); give --restart"):
        check_same(tmp_path, plan(rates=(0.01, 0.02)), plan(rates=(0.01,)))
    longer = plan(config="SOLVER:\n  MAX_ITER: 4\n")
    with pytest.raises(
        ValueError, match=r"another config \(-  MAX_ITER: 3 \+  MAX_ITER: 4\); give"
    ):
        check_same(tmp_path, plan(), longer)
    changed = plan(files={**plan().files, "b.pkl": ("/x/b.pkl", "cc")})
    with pytest.raises(ValueError, match="the file b.pkl has changed; give --restart"):
        check_same(tmp_path, plan(), changed)
    other = plan(arms=(plan().arms[0], Arm("ours", ("b.pkl", "a.pkl"))))
    with pytest.raises(ValueError, match="the arm ours had the weights a.pkl,b.pkl; give"):
        check_same(tmp_path, plan(), other)


def test_an_arm_keeps_the_weights_of_each_seed(tmp_path: Path) -> None:
    """One file for all seeds is another arm than one for each that begins with it."""
    arms = (plan().arms[0], Arm("ours", ("a.pkl",)))
    with pytest.raises(ValueError, match="the arm ours had the weights a.pkl; give --restart"):
        check_same(tmp_path, plan(arms=arms), plan())
    check_same(tmp_path, plan(arms=arms, seeds=(1,)), plan())  # seed 2 is new
    check_same(tmp_path, plan(), plan(arms=(Arm("ours", ("a.pkl",)),), seeds=(1,)))


def test_another_test_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="annotations of the test set have changed; give --rest"):
        check_same(tmp_path, plan(truth="aa"), plan(truth="bb"))


def test_a_repeated_pretraining_is_another_file() -> None:
    with pytest.raises(ValueError, match="weights 'ours': a file is given twice; repeated"):
        parse_arms(["ours=a.pkl,b.pkl,a.pkl"], 3)
