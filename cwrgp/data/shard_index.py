"""The indexing of many shards, divided among the processes of a run and cached for the next."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path

import numpy as np
import torch.distributed as dist

from cwrgp.comm import get_rank, get_world_size
from cwrgp.file_io.atomic import replacing
from cwrgp.file_io.cache import cache_dir

_THREADS = 8
# What file systems know of a file that changes with its content.
_VERSION_KEYS = ("size", "mtime", "ETag", "LastModified", "last_modified", "updated", "md5Hash")

Index = Callable[[str], np.ndarray]


def shared_among_processes(urls: Sequence[str], index: Index) -> list[np.ndarray]:
    """``index`` of every shard, on every process; each process computes a part.

    Args:
        urls: the shards, the same on every process.
        index: of one shard; called in threads.

    Raises:
        ValueError, OSError: the first error of ``index`` in the order of the shards, on every
            process.
    """
    rank, world = get_rank(), get_world_size()
    with ThreadPoolExecutor(_THREADS) as pool:
        mine = list(pool.map(lambda url: _outcome(index, url), urls[rank::world]))
    parts: list[list[np.ndarray | OSError | ValueError]] = [[] for _ in range(world)]
    if world > 1:
        dist.all_gather_object(parts, mine)
    else:
        parts = [mine]
    outcomes = [parts[i % world][i // world] for i in range(len(urls))]
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, np.ndarray)]


def _outcome(index: Index, url: str) -> np.ndarray | OSError | ValueError:
    """The index or the error: a process that raised would leave the others waiting."""
    try:
        return index(url)
    except (OSError, ValueError) as error:
        return error


def cached(index: Index) -> Index:
    """Caches the index of each shard in a file.

    The file's name is a digest of the shard's name and version (size, time, ETag), so that a shard
    that was replaced is indexed again.
    """

    @wraps(index)
    def from_cache(url: str) -> np.ndarray:
        version = _version(url)
        if version is None:
            return index(url)
        path = cache_dir() / "shards" / f"{version}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):  # missing or damaged
            return np.load(path, allow_pickle=False)
        table = index(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, table.nbytes) as temporary, temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        return table

    return from_cache


def _version(url: str) -> str | None:
    """A digest of a shard's name and version; None where at most its size is known."""
    import fsspec

    local = "://" not in url
    try:
        system, path = fsspec.core.url_to_fs(str(Path(url).expanduser()) if local else url)
        info = system.info(path)
    except Exception:  # `index` meets the same error and reports it
        return None
    known = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None}
    if len(known) < 2:
        return None
    name = str(Path(url).expanduser().absolute()) if local else url
    return hashlib.sha256(repr((1, name, sorted(known.items()))).encode()).hexdigest()
