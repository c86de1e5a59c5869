"""Cells end in a result, whatever happens before; the real processes run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cwrgp.cells import (
    ERROR,
    RESULT,
    RUN,
    Cell,
    State,
    folder_result,
    folder_state,
    run_cells,
    run_once,
)
from cwrgp.preemption import Preempted

WORK = """
import sys
from pathlib import Path
from cwrgp.cells import run_once
folder, word = Path(sys.argv[1]), sys.argv[2]

def work():
    if word == "bad":
        raise ValueError("two\\nlines")
    return {"word": word}

run_once(folder, work)
"""


def cell(root: Path, name: str, word: str) -> Cell:
    folder = root / name
    return Cell(name, folder, [sys.executable, "-c", WORK, str(folder), word], root / f"{name}.txt")


def test_work_is_done_once(tmp_path: Path) -> None:
    folder, calls = tmp_path / "a", []
    assert folder_state(folder) == (State.WAITING, "") and folder_result(folder) is None

    def work() -> dict[str, int]:
        calls.append(1)
        return {"calls": len(calls)}

    run_once(folder, work)
    run_once(folder, work)
    result = folder_result(folder)
    assert result is not None and result["calls"] == 1 and result["seconds"] >= 0
    assert folder_state(folder) == (State.DONE, "")


def test_an_error_is_kept_until_the_work_succeeds(tmp_path: Path) -> None:
    def fail() -> dict[str, int]:
        raise OSError("no\n  space")

    with pytest.raises(OSError, match="no"):
        run_once(tmp_path, fail)
    assert folder_state(tmp_path) == (State.FAILED, "no space")
    run_once(tmp_path, lambda: {})
    assert not (tmp_path / ERROR).exists() and folder_state(tmp_path)[0] is State.DONE


def test_a_run_that_was_stopped_is_started(tmp_path: Path) -> None:
    def stop() -> dict[str, int]:
        (tmp_path / RUN).mkdir()
        raise Preempted("stopped")

    with pytest.raises(Preempted):
        run_once(tmp_path, stop)
    assert folder_state(tmp_path) == (State.STARTED, "") and not (tmp_path / ERROR).exists()


def test_cells_that_are_done_do_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell(tmp_path, name, name) for name in "ab"]
    cells[0].folder.mkdir()
    (cells[0].folder / RESULT).write_text(json.dumps({"word": "before"}))
    run_cells(cells, at_once=2, noun="things")
    assert folder_result(cells[0].folder) == {"word": "before"}
    result = folder_result(cells[1].folder)
    assert result is not None and result["word"] == "b"
    printed = capsys.readouterr().out
    assert printed.startswith("1 of 2 things are done already\nb: done in ")


def test_a_failed_cell_says_why_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [cell(tmp_path, "a", "bad"), cell(tmp_path, "b", "good")]
    message = rf"1 of 2 cells failed, the first a: two lines \(the whole log is {tmp_path}/a.txt\)"
    with pytest.raises(ValueError, match=message):
        run_cells(cells, at_once=1)
    assert folder_state(cells[1].folder)[0] is State.DONE
    assert "a: failed in" in capsys.readouterr().out
    assert "1 left, about" not in capsys.readouterr().err
