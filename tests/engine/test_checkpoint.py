"""Checkpoints survive whatever interrupts their writing."""

from __future__ import annotations

import pytest
import torch

from cwrgp.checkpoints.last_checkpoint import FILE
from cwrgp.engine.checkpoint import Checkpoints


def test_the_last_state_comes_back_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.load_last() is None
    for step in range(4):
        checkpoints.save(
            {"model": {"w": torch.full((2,), step)}, "iteration": step}, f"model_{step:07d}"
        )
    checkpoints.save({"model": {}, "iteration": 4}, "model_final")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [FILE, "model_0000002.pth", "model_0000003.pth", "model_final.pth"]
    assert checkpoints.load_last()["iteration"] == 4


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save({"iteration": 7}, "model_0000007")
    before = path.read_bytes()
    with pytest.raises(AttributeError, match="pickle"):
        checkpoints.save({"model": torch.ones(1000), "broken": lambda: None}, "model_0000007")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE, "model_0000007.pth"]
    assert checkpoints.load_last() == {"iteration": 7}


def test_a_checkpoint_that_is_gone_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"iteration": 7}, "model_0000007").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 'model_0000007\.pth', which is not in"):
        checkpoints.load_last()


def test_a_kill_before_the_first_one_is_named_loses_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10):
        checkpoints.save({"iteration": step}, f"model_{step:07d}")
    (tmp_path / FILE).unlink()
    assert checkpoints.load_last() == {"iteration": 10}
