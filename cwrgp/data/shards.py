"""WebDataset shards as a data set of numbered images.

An index of the shards, made once, says where in which tar file each image lies; an image is then
one read of so many bytes from there, in a local file or at a URL. So shards have what folders have:
any order, any number of processes and workers, and an exact resume, without shuffle buffers.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
from PIL import Image

from cwrgp.data.base import StorageError
from cwrgp.data.shard_index import cached, shared_among_processes
from cwrgp.images import IMAGE_SUFFIXES, open_rgb

_ATTEMPTS = 3
_META = re.compile(r"__[^/]*__($|/)")  # what the webdataset package takes for no sample


class Shards:
    """The images of WebDataset shards: samples with one image and, where they have labels, a
    ``cls``.

    Args:
        source: a path or URL of uncompressed tar files with braces (``{000..146}``) or wildcards,
            several of them joined by ``::``, or a folder of ``*.tar``, whose URL ends with ``/``.
            URLs are those of fsspec: ``https://``, ``s3://``, ``gs://`` ...
        num_samples: how many samples there must be; 0: not known.

    Raises:
        FileNotFoundError: no shard, or one is missing.
        StorageError: a shard cannot be reached.
        ValueError: a shard is damaged or compressed, a sample has no image or several, samples are
            more or fewer than they must be, or a package is missing.
    """

    def __init__(self, source: str, *, num_samples: int = 0) -> None:
        self.urls = expand(source)
        parts = shared_among_processes(self.urls, index_shard)
        sizes = [len(part) for part in parts]
        # Arrays, which the workers share: lists would be copied as they are read.
        self._shards = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
        table = np.concatenate(parts)
        self._starts, self._sizes = table[:, 0].copy(), table[:, 1].copy()
        self.labels: list[int] = table[:, 2].tolist()
        if not len(table):
            raise ValueError(f"DATA.ROOT {source}: the {len(parts)} shards hold no sample")
        if num_samples and num_samples != len(table):
            raise ValueError(
                f"DATA.NUM_SAMPLES is {num_samples}, but the {len(parts)} shards of {source} hold "
                f"{len(table)} samples: is one missing?"
            )

    def __len__(self) -> int:
        return len(self._starts)

    def load(self, index: int) -> Image.Image:
        start, size = int(self._starts[index]), int(self._sizes[index])
        content = read_range(self.urls[self._shards[index]], start, start + size)
        return open_rgb(io.BytesIO(content), self.name(index))

    def name(self, index: int) -> str:
        return f"{self.urls[self._shards[index]]} at byte {self._starts[index]}"


def expand(source: str) -> list[str]:
    """The shards that a source of :class:`Shards` names, in order.

    Raises:
        FileNotFoundError: nothing fits a wildcard or is in the folder.
        ValueError: the webdataset package is missing, or what fsspec needs for the URLs.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise ValueError(
            "DATA.NAME webdataset needs a package: pip install 'cwrgp[webdataset]'"
        ) from error
    shards: list[str] = []
    for pattern in expand_urls(source):
        system, path = _file_system(pattern)
        local = "://" not in pattern
        if not any(character in path for character in "*?["):
            # A URL's folder is not asked for, its end tells; a shard's being there is seen later.
            if not (system.isdir(path) if local else pattern.endswith("/")):
                shards.append(pattern)
                continue
            path = f"{path.rstrip('/')}/*.tar"
        found = sorted(system.glob(path))
        if not found:
            raise FileNotFoundError(
                f"DATA.ROOT {source}: no shard fits {path}; name the .tar files with {{000..146}} "
                "or *, or write some with webdataset.ShardWriter"
            )
        shards += found if local else [system.unstrip_protocol(name) for name in found]
    return shards


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` of a file, local or not.

    Raises:
        StorageError: after three attempts.
    """
    for attempt in range(_ATTEMPTS):
        try:
            system, path = _file_system(url)  # cached by fsspec, for each process of its own
            content = system.cat_file(path, start=start, end=stop)
        except Exception as error:  # every file system has its own
            if attempt + 1 == _ATTEMPTS:
                raise StorageError(f"shard {url} cannot be read: {_one_line(error)}") from error
        else:
            if len(content) != stop - start:
                raise StorageError(
                    f"shard {url} gave {len(content)} instead of the {stop - start} bytes from "
                    f"{start} on: was it changed, or does its server not know ranges?"
                )
            return content
    raise AssertionError("the last attempt returns or raises")


@cached
def index_shard(url: str) -> np.ndarray:
    """Where the images of a shard are: int64 (samples, 3), first byte, size in bytes and label.

    Which files belong to a sample is the webdataset package's own rule: the same name up to the
    first dot, one after the other.

    Raises:
        FileNotFoundError, StorageError, ValueError: as :class:`Shards`.
    """
    from webdataset.tariterators import group_by_keys

    system, path = _file_system(url)
    try:
        # Large blocks: a URL is read from end to end, since every header has to be seen.
        with system.open(path, "rb", block_size=2**24) as file:
            rows = [_row(url, sample) for sample in group_by_keys(_members(url, file))]
    except FileNotFoundError as error:
        unreachable = " or its server cannot be reached" if "://" in url else ""
        raise FileNotFoundError(
            f"shard {url} does not exist{unreachable}; DATA.ROOT names it, so fetch it or name "
            "fewer"
        ) from error
    except ValueError:
        raise
    except Exception as error:
        raise StorageError(f"shard {url} cannot be read: {_one_line(error)}") from error
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _members(url: str, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The files in a shard as webdataset has them, but with places and labels for contents."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
                if not member.isreg() or _META.match(member.name):
                    continue
                place: tuple[int, ...] = (member.offset_data, member.size)
                if member.name.lower().endswith(".cls"):
                    content = tar.extractfile(member)
                    assert content is not None
                    place = (_label(url, member.name, content.read()),)
                yield {"fname": member.name, "data": place, "__url__": url}
            end = tar.offset
        file.seek(end)
        # tarfile takes what it does not understand for the end.
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"no end of archive at byte {end}")
    except tarfile.TarError as error:
        raise ValueError(
            f"shard {url} is no whole uncompressed tar file ({error}); fetch it again, or "
            "decompress it"
        ) from error


def _row(url: str, sample: dict[str, Any]) -> tuple[int, int, int]:
    files = {kind: place for kind, place in sample.items() if not kind.startswith("__")}
    images = [kind for kind in files if f".{kind.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise ValueError(
            f"shard {url}: the sample {sample['__key__']} has {len(images)} images "
            f"({', '.join(files)}); it must have one"
        )
    start, size = files[images[0]]
    return start, size, files["cls"][0] if "cls" in files else -1


def _label(url: str, name: str, content: bytes) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdigit():
        raise ValueError(f"shard {url}: {name} holds {text[:20]!r} instead of a class's number")
    return int(text)


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return fsspec.core.url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"DATA.ROOT {url}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
