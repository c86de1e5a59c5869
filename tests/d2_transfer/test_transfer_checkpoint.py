"""Writing that survives a kill, and the choice of what a run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from d2_transfer.checkpoint import TransferCheckpointer, starting_point


def test_saving_that_fails_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpointer = TransferCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"model_0000001.pth", "last_checkpoint"}
    with pytest.raises(AttributeError, match="pickle"):
        checkpointer.save("model_0000002", iteration=2, broken=lambda: None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert torch.load(tmp_path / "model_0000001.pth")["iteration"] == 1  # weights_only


def test_starting_point(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert starting_point(folder, "w.pkl", resume=True) == ("w.pkl", False)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth\n")
    assert starting_point(folder, "w.pkl", resume=False) == ("w.pkl", False)
    with pytest.raises(FileNotFoundError, match="last_checkpoint names 'model_0000001.pth'"):
        starting_point(folder, "w.pkl", resume=True)
    (tmp_path / "model_0000001.pth").touch()
    path = str(tmp_path / "model_0000001.pth")
    assert starting_point(folder, "w.pkl", resume=True) == (path, True)
    (tmp_path / "last_checkpoint").unlink()  # killed before it was written
    assert starting_point(folder, "w.pkl", resume=True) == (path, True)
    assert TransferCheckpointer(nn.Linear(2, 2), folder).get_checkpoint_file() == path
