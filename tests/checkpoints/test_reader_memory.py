"""Memory: reading takes what the tensors take, and a small file cannot ask for more."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from repository import REPOSITORY
from safetensors.torch import save_file

from cwrgp.checkpoints.reader import read_checkpoint

SIZE = 50 * 2**20  # of each of four tensors, in bytes

# Prints its peak memory after each file that it has read, every number of it included.
READER = """
import resource, sys, torch
from cwrgp.checkpoints.reader import read_checkpoint
for path in sys.argv[1:]:
    content = read_checkpoint(path)
    assert all(float(x.sum()) == x.numel() for x in content.values())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
# A process begins with the peak of the one that starts it; this one is small.
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def peaks_of_reading(*paths: Path) -> list[int]:
    """In bytes."""
    command = [sys.executable, "-c", LAUNCHER, READER, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert result.stderr == ""
    unit = 1 if sys.platform == "darwin" else 1024
    return [int(line) * unit for line in result.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["pickle", "zip", "stream", "safetensors"])
def test_reading_takes_the_memory_of_the_tensors_once(tmp_path: Path, kind: str) -> None:
    paths = []
    for name, elements in (("tiny", 1), ("large", SIZE // 4)):
        path = tmp_path / name
        tensors = {f"t{i}": torch.ones(elements) for i in range(4)}
        if kind == "pickle":
            with path.open("wb") as file:
                pickle.dump({k: v.numpy() for k, v in tensors.items()}, file, protocol=4)
        elif kind == "safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
        paths.append(path)
    tiny, large = peaks_of_reading(*paths)
    assert 0.9 * 4 * SIZE < large - tiny < 1.2 * 4 * SIZE


BOMBS = {
    "memo": b"\x80\x04}r\xff\xff\xff\x7f.",
    "bytearray": b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00.",
    "bytes": b"\x80\x05\x8e\x00\x00\x00\x00\x02\x00\x00\x00.",
}


def test_a_file_of_20_bytes_takes_no_memory(tmp_path: Path) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in BOMBS.items():
        (tmp_path / name).write_bytes(content)
    assert read_checkpoint(tmp_path / "memo") == {}
    for name in ("bytearray", "bytes"):
        with pytest.raises(ValueError, match="damaged or cut off"):
            read_checkpoint(tmp_path / name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
    assert grown * (1 if sys.platform == "darwin" else 1024) < 2**28


def test_a_tensor_that_unfolds_beyond_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "expanded.pth")
    with pytest.raises(ValueError, match=r"\[1000000, 1000000\] is larger than the whole file"):
        read_checkpoint(tmp_path / "expanded.pth")
