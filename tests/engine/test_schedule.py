"""Learning rates against the recipes' own words."""

from __future__ import annotations

import math

import pytest

from cwrgp.engine.schedule import build_schedule


def test_step_schedule_of_the_cifar_recipe():
    lr = build_schedule("step", 3e-3, total_steps=195_000, steps_per_epoch=195, warmup_steps=500)
    assert lr(0) == pytest.approx(3e-3 / 500)
    assert lr(249) == pytest.approx(3e-3 / 2)
    assert lr(499) == lr(500) == lr(950 * 195 - 1) == pytest.approx(3e-3)
    assert lr(950 * 195) == lr(975 * 195 - 1) == pytest.approx(3e-3 * 0.2)
    assert lr(975 * 195) == lr(194_999) == pytest.approx(3e-3 * 0.04)


def test_cosine_schedule_changes_once_an_epoch_and_ends_near_zero():
    lr = build_schedule("cosine", 0.1, total_steps=1000, steps_per_epoch=10, warmup_steps=20)
    for step in (20, 555, 999):
        epoch = step // 10
        assert lr(step) == pytest.approx(0.05 * (1 + math.cos(math.pi * epoch / 100)))
    assert lr(990) == lr(999) > 0


def test_cosine_of_every_iteration_begins_after_the_warm_up_and_ends_at_its_ratio():
    lr = build_schedule(
        "cosine_iter", 0.5, total_steps=1020, steps_per_epoch=10, warmup_steps=20, final_ratio=0.001
    )
    assert lr(0) == pytest.approx(0.5 / 20) and lr(19) == lr(20) == pytest.approx(0.5)
    for step in (21, 333, 1019):
        share = 0.5 * (1 + math.cos(math.pi * (step - 20) / 1000))
        assert lr(step) == pytest.approx(0.5 * share + 0.0005 * (1 - share))
    assert 0.0005 < lr(1019) < 0.000502


def test_two_drops_at_one_epoch_are_one():
    lr = build_schedule("step", 1.0, total_steps=40, steps_per_epoch=10, drop_epochs=(1, 1))
    assert (lr(29), lr(30)) == (1.0, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "linear"}, "^schedule 'linear' is unknown; choose one of"),
        (
            {"name": "cosine", "warmup_steps": 100},
            "^the warm-up of 100 iterations is not shorter than the run of 100$",
        ),
        ({"name": "step"}, r"^drop_epochs \[50, 25\] count from the end of the run, which has 10"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(base_lr=1.0, total_steps=100, steps_per_epoch=10, **arguments)
