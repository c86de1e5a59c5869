"""Checkpoints read from URLs: two servers, a page where a file should be, no server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from file_server import serving

from cwrgp.checkpoints.reader import read_checkpoint


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))


def as_bytes(value: float) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": torch.full((3,), value)}, buffer)
    return buffer.getvalue()


def test_files_of_one_path_on_two_servers_are_two_files() -> None:
    with serving() as one, serving() as other:
        one.files["/ckpt/model.pth"], other.files["/ckpt/model.pth"] = as_bytes(1), as_bytes(2)
        for _ in range(2):
            for server, value in ((one, 1.0), (other, 2.0)):
                found = read_checkpoint(f"{server.url}/ckpt/model.pth")
                assert torch.equal(found["x"], torch.full((3,), value))
        assert (len(one.asked), len(other.asked)) == (1, 1)  # kept


def test_a_page_is_refused_and_not_kept() -> None:
    with serving() as server:
        server.files["/a.pth"] = b"<!DOCTYPE html><html>please log in</html>"
        with pytest.raises(ValueError, match="web page"):
            read_checkpoint(f"{server.url}/a.pth")
        server.files["/a.pth"] = as_bytes(3)
        assert read_checkpoint(f"{server.url}/a.pth")["x"][0] == 3


def test_what_is_not_there_is_said_with_its_address() -> None:
    with serving() as server:
        url = f"{server.url}/none.pth"
        with pytest.raises(FileNotFoundError, match="none.pth"):
            read_checkpoint(url)


def test_a_home_that_does_not_exist_is_no_file() -> None:
    with pytest.raises(FileNotFoundError, match="~nobody-of-this-name/in.pth"):
        read_checkpoint("~nobody-of-this-name/in.pth")
