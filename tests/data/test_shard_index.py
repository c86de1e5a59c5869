"""The index of shards: its contents, its cache, and its making by several processes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from grey_shards import numbers, write_shards
from two_processes import in_two_processes

from cwrgp.data.shards import Shards, index_shard


def test_an_index_is_kept_until_its_shard_changes(tmp_path, cache):
    source = write_shards(tmp_path)
    first = Shards(source)
    kept = sorted(cache.iterdir())
    assert len(kept) == 3
    # Read instead of made anew: what is in the files counts.
    table = np.load(kept[0])
    np.save(kept[0], table + [0, 0, 5])
    assert sum(Shards(source).labels) == sum(first.labels) + 5 * len(table)
    kept[0].write_bytes(kept[0].read_bytes()[:20])
    assert (Shards(source).labels == first.labels).all()
    for path in (tmp_path / f"part-00{i}.tar" for i in range(3)):
        stamp = path.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(stamp, stamp))
    assert (Shards(source).labels == first.labels).all()
    assert len(list(cache.iterdir())) == 6


def test_an_index_follows_the_umask_and_nothing_is_left_of_a_failure(tmp_path, cache, monkeypatch):
    source = write_shards(tmp_path, (2,))
    before = os.umask(0o027)
    try:
        Shards(source)
    finally:
        os.umask(before)
    (index,) = cache.iterdir()
    assert index.stat().st_mode & 0o777 == 0o640
    index.unlink()

    def full(file, *args, **rest):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="npy was not written: the disk is full"):
        Shards(source)
    assert not list(cache.iterdir())


def index_in_processes(rank: int, folder: str, source: str) -> dict[str, object]:
    os.environ["CWRGP_CACHE"] = f"{folder}/cache-{rank}"
    shards = Shards(source)
    outcome = {"labels": shards.labels.tolist(), "numbers": numbers(shards)}
    outcome["indexed"] = len(list(Path(folder, f"cache-{rank}", "shards").iterdir()))
    torch.distributed.barrier()
    if rank == 0:
        Path(folder, "part-001.tar").write_bytes(b"x" * 600)
    torch.distributed.barrier()
    with pytest.raises(ValueError, match="part-001.tar is not a complete, uncompressed tar file"):
        Shards(source)
    return outcome


@pytest.mark.dist
def test_processes_share_the_indexing_and_a_damaged_shard_stops_all(tmp_path):
    source = write_shards(tmp_path)
    outcomes = in_two_processes(tmp_path, index_in_processes, str(tmp_path), source)
    for rank, outcome in enumerate(outcomes):
        assert outcome["numbers"] == list(range(16)) and outcome["indexed"] == (2, 1)[rank]
        assert outcome["labels"] == [n % 3 for n in range(16)]


def test_the_index_of_one_shard(tmp_path):
    write_shards(tmp_path)
    table = index_shard(str(tmp_path / "part-000.tar"))
    assert table.dtype == np.int64 and table.shape == (5, 3)
    assert table[:, 2].tolist() == [0, 1, 2, 0, 1] and (table[:, 0] % 512 == 0).all()
