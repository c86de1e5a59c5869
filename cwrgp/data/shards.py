"""WebDataset shards as a data set of numbered images.

An index of the shards, made once, has the position and size of each image in its tar file. An image
is then one read of this range, from a local file or a URL. So shards offer what folders offer: any
order, any number of processes and workers, and an exact resume, without shuffle buffers.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cwrgp.data.base import StorageError
from cwrgp.data.shard_index import cached, shared_among_processes
from cwrgp.data.string_array import StringArray
from cwrgp.errors import MissingPackage
from cwrgp.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import fsspec

_ATTEMPTS = 3
_META = re.compile(r"__[^/]*__($|/)")  # what the webdataset package skips


class Shards:
    """The images of WebDataset shards. A sample has one image, and may have a ``cls``, its label.

    Args:
        source: a path or URL of uncompressed tar files with braces (``{000..146}``) or wildcards,
            several of them joined by ``::``, or a folder of ``*.tar``, whose URL ends with ``/``.
            URLs are those of fsspec: ``https://``, ``s3://``, ``gs://`` ...
        num_samples: number of samples that there must be; 0: any.

    Raises:
        FileNotFoundError: there is no shard, or one is missing.
        StorageError: a shard cannot be reached.
        ValueError: a shard is damaged or compressed, a sample has no image or several, there are
            more or fewer than ``num_samples``, or a package is missing.
    """

    def __init__(self, source: str, *, num_samples: int = 0) -> None:
        urls = expand(source)
        self.urls = StringArray(urls)
        parts = shared_among_processes(urls, index_shard)
        sizes = [len(part) for part in parts]
        self._shards = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
        table = np.concatenate(parts)
        self._starts, self._sizes = table[:, 0].copy(), table[:, 1].copy()
        self.labels = table[:, 2].copy()
        if not len(table):
            raise ValueError(f"the {len(parts)} shards of {source} hold no sample")
        if num_samples and num_samples != len(table):
            raise ValueError(
                f"the {len(parts)} shards of {source} hold {len(table)} samples instead of "
                f"{num_samples}: is a shard missing?"
            )

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, index: int) -> bytes:
        start, size = int(self._starts[index]), int(self._sizes[index])
        return read_range(self.urls[self._shards[index]], start, start + size)

    def name(self, index: int) -> str:
        return f"{self.urls[self._shards[index]]} at byte {self._starts[index]}"


def expand(source: str) -> list[str]:
    """The shards that a source of :class:`Shards` names, in order.

    Raises:
        FileNotFoundError: nothing matches a wildcard, or a folder has no shard.
        MissingPackage: webdataset, fsspec, or what fsspec needs for the URLs is not installed.
        ValueError: a URL of an unknown protocol.
    """
    try:
        import fsspec  # noqa: F401
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise MissingPackage(
            f"WebDataset shards need the package {error.name}: pip install 'cwrgp[webdataset]'",
            name=error.name,
        ) from error
    shards: list[str] = []
    for pattern in expand_urls(source):
        system, path = _file_system(pattern)
        local = "://" not in pattern
        if not any(character in path for character in "*?["):
            # A URL is a folder if it ends with "/". Whether a shard exists is seen later.
            if not (system.isdir(path) if local else pattern.endswith("/")):
                shards.append(pattern)
                continue
            path = f"{path.rstrip('/')}/*.tar"
        found = sorted(system.glob(path))
        if not found:
            raise FileNotFoundError(
                f"no shard matches {path}; name the .tar files with {{000..146}} or *, or write "
                "some with webdataset.ShardWriter"
            )
        shards += found if local else [system.unstrip_protocol(name) for name in found]
    return shards


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes ``start`` to ``stop`` (exclusive) of a local file or a URL.

    Raises:
        StorageError: after three attempts.
    """
    for attempt in range(_ATTEMPTS):
        try:
            system, path = _file_system(url)  # fsspec caches it per process
            content = system.cat_file(path, start=start, end=stop)
        except Exception as error:  # every file system has errors of its own
            if attempt + 1 == _ATTEMPTS:
                raise StorageError(f"shard {url} cannot be read: {_one_line(error)}") from error
        else:
            if len(content) != stop - start:
                raise StorageError(
                    f"shard {url} gave {len(content)} instead of {stop - start} bytes at byte "
                    f"{start}: was it changed, or does its server not support ranges?"
                )
            return content
    raise AssertionError("the last attempt returns or raises")


@cached
def index_shard(url: str) -> np.ndarray:
    """Position of the images of a shard: int64 (samples, 3), first byte, size in bytes and label.

    Files belong to one sample by the rule of the webdataset package: they follow each other and
    have the same name up to the first dot.

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
            f"shard {url} does not exist{unreachable}; download it, or name fewer shards"
        ) from error
    except ValueError:
        raise
    except Exception as error:
        raise StorageError(f"shard {url} cannot be read: {_one_line(error)}") from error
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _members(url: str, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The files in a shard as webdataset gives them, with a position or label for the content."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or all headers stay in memory
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
        # tarfile takes a header that it does not understand for the end.
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"no end of archive at byte {end}")
    except tarfile.TarError as error:
        raise ValueError(
            f"shard {url} is not a complete, uncompressed tar file ({error}); download it again, "
            "or decompress it"
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
        raise ValueError(
            f"shard {url}: {name} holds {text[:20]!r} instead of the number of a class"
        )
    return int(text)


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    import fsspec  # like webdataset, only with the extra

    try:
        return fsspec.core.url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
    except ImportError as error:  # says what to install
        raise MissingPackage(f"{url}: {_one_line(error)}", name=error.name) from error
    except ValueError as error:
        raise ValueError(f"{url}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
