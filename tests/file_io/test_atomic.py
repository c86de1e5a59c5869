"""Atomic writes: complete files or none, under failures, kills and full disks."""

from __future__ import annotations

import os
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cwrgp.checkpoints.writer import num_bytes, write_checkpoint
from cwrgp.file_io.atomic import (
    check_folder,
    move_into_place,
    replacing,
    write_bytes,
    write_text,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the sec")
        raise RuntimeError
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", Path("relative")):
        check_folder(folder)
    for folder in ("file", "file/a/b"):
        with pytest.raises(
            OSError, match=f"{folder} cannot be a folder: {tmp_path}/file is a file"
        ):
            check_folder(Path(folder))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(OSError, match=f"no permission to write in {tmp_path}"):
        check_folder(Path("a/b"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_kill_during_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last_checkpoint"
    path.write_text("model_0000001.pth")
    child = os.fork()
    if child == 0:  # pragma: no cover
        with replacing(path) as temporary:
            temporary.write_text("model_00")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == "model_0000001.pth"


def test_small_files(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "käse")
    write_bytes(tmp_path / "b", b"\0\1")
    assert (tmp_path / "a").read_bytes() == "käse".encode()
    assert (tmp_path / "b").read_bytes() == b"\0\1"
    move_into_place(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "käse"


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected


def test_threads_leave_the_umask_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the whole process: two threads that read it could leave it at 0."""
    monkeypatch.setattr(os, "umask", None)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_bytes_of_tensors() -> None:
    shared = torch.zeros(100)
    content = {"a": shared, "b": [shared[:10], {"c": torch.zeros(3, dtype=torch.int64)}], "d": "x"}
    assert num_bytes(content) == 100 * 4 + 3 * 8


@pytest.fixture
def small_file_limit() -> Iterator[None]:
    """Files of this process end at 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def _pickle(path: Path, tensors: dict[str, Tensor]) -> None:
    with replacing(path, num_bytes(tensors)) as temporary, temporary.open("wb") as file:
        pickle.dump({name: tensor.numpy() for name, tensor in tensors.items()}, file)


def _safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with replacing(path, num_bytes(tensors)) as temporary:
        safetensors.torch.save_file(tensors, temporary)


@pytest.mark.parametrize("write", [write_checkpoint, _pickle, _safetensors])
def test_a_file_without_room_is_one_line_and_leaves_the_old_one(
    tmp_path: Path, small_file_limit: None, write: Callable[[Path, dict[str, Tensor]], None]
) -> None:
    path = tmp_path / "model.pth"
    path.write_text("old")
    message = (
        f"{path} was not written: the file is larger than this process may write \\(ulimit -f\\)"
        rf" \(about 0.4 MB needed, \d+\.\d MB free in {tmp_path}\); make room and run the command"
    )
    with pytest.raises(OSError, match=message) as error:
        write(path, {f"w{i}": torch.ones(10_000) for i in range(10)})
    assert "\n" not in str(error.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


def test_other_errors_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as temporary:
        (temporary.parent / "missing").read_text()
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "a", "x")
    assert list(tmp_path.iterdir()) == []
