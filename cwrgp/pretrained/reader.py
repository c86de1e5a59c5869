"""Safe reading of a checkpoint file: tensors, arrays, numbers and text. Nothing in it is executed.

The kind of file is told by its first bytes, never by its name:

- a zip archive, or the older stream format, as ``torch.save`` writes them;
- a pickle of NumPy arrays, the classic ``.pkl`` of Detectron2's model zoo.

Both are unpickled through an allow-list of inert types; a file that needs another is refused.
"""

from __future__ import annotations

import collections
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from iopath.common.file_io import HTTPURLHandler, PathManager

_path_manager = PathManager()
_path_manager.register_handler(HTTPURLHandler())

# How torch.save's stream format (before 1.6) begins: its magic number, pickled.
_TORCH_STREAM_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)

_NUMPY_MODULES = {  # under NumPy 1 and 2
    f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")
}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to CPU memory without executing anything in it.

    Args:
        path: a file, or a URL that iopath can fetch (``https://...``).

    Returns:
        The dictionary in the file; NumPy arrays are turned into tensors. Tensors of a zip archive
        are mapped from the file, so that only what is used is read into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a checkpoint, holds no dictionary, or needs a type
            other than tensors, arrays, numbers, text and containers of them. The message names it.
    """
    local = local_file(path)
    with local.open("rb") as file:
        start = file.read(len(_TORCH_STREAM_START))
    if not start:
        raise ValueError(f"{path} is empty (0 bytes): the file was never written or is cut off")
    try:
        if start.startswith(b"PK"):
            _check_archive(local)
            content = torch.load(str(local), map_location="cpu", weights_only=True, mmap=True)
        elif start == _TORCH_STREAM_START:
            content = torch.load(str(local), map_location="cpu", weights_only=True)
        else:
            with local.open("rb") as file:
                content = _to_tensors(_ArrayUnpickler(file, encoding="latin1").load())
    except OSError:
        raise
    except Exception as error:  # a damaged file can break its reader in any way
        raise ValueError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def local_file(path: str | Path) -> Path:
    """The local path of a file; a URL is downloaded into iopath's cache first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    local = Path(_path_manager.get_local_path(str(path))).expanduser()
    if local.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a checkpoint file")
    if not local.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return local


class _ForbiddenType(pickle.UnpicklingError):
    """A pickle asks for a type outside the allow-list."""


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers; every other type raises `_ForbiddenType`."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        # latin1: the arrays of Python 2 pickles are text strings of bytes.
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY_MODULES and name in _NUMPY_FUNCTIONS:
            return _NUMPY_FUNCTIONS[name]
        if (module, name) in _INERT_TYPES:
            return _INERT_TYPES[module, name]
        raise _ForbiddenType(f"GLOBAL {module}.{name}")


class _Dtype:
    """Stands for ``numpy.dtype``: numbers only, and no attribute that a file could set.

    NumPy's own classes trust what they are given: called or restored with chosen arguments they
    make arrays of pointers out of bytes.
    """

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", code):
            raise _ForbiddenType(f"GLOBAL numpy.dtype({code!r})")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands for an array; NumPy checks that bytes, type and shape fit."""

    numpy: np.ndarray

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, data = state
        # Python 2 wrote text.
        content = data.encode("latin1") if isinstance(data, str) else data
        self.numpy = _array(content, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray:
    array = np.frombuffer(data, dtype.numpy) if len(data) else np.empty(0, dtype.numpy)
    return array.reshape(tuple(shape), order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()  # its state follows


def _array_type(*_: Any) -> None:
    """Stands for ``numpy.ndarray``, which is named in a pickle but never called."""
    raise _ForbiddenType("GLOBAL numpy.ndarray()")


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.numpy = _array(data, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, data: Any) -> int | float | complex | bool:
    content = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(content, dtype.numpy, count=1)[0].item()


def _encode_latin1(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 call to build bytes, without its access to every other codec."""
    if encoding != "latin1":
        raise _ForbiddenType(f"GLOBAL codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """What pickles of protocol 2 call for empty bytes."""
    return b""


_INERT_TYPES = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _no_bytes,
}
_NUMPY_FUNCTIONS = {"_reconstruct": _reconstruct, "_frombuffer": _from_buffer, "scalar": _scalar}


def _to_tensors(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Each object once, however often it is contained: nesting could double it at every level."""
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    result = value
    if isinstance(value, dict):
        result = {key: _to_tensors(item, done) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_to_tensors(item, done) for item in value)
    elif isinstance(value, _Array):
        # torch wants memory that is writable, and its own byte order.
        native = value.numpy.dtype.newbyteorder("=")
        result = torch.from_numpy(value.numpy.astype(native, copy=True))
    done[id(value)] = result
    return result


def _check_archive(local: Path) -> None:
    """Compares every record with its checksum, which torch.load does not do."""
    with zipfile.ZipFile(local) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of its record {damaged!r} does not fit")


def _explain(path: str | Path, error: Exception) -> str:
    message = str(error)
    forbidden = re.search(r"GLOBAL (\S+(?: \S+)?)", message)
    if isinstance(error, pickle.UnpicklingError) and forbidden:
        name = forbidden[1] if forbidden[1].startswith("codec ") else forbidden[1].split()[0]
        return (
            f"{path} is refused: it needs the type {name!r}, which is not among those that are safe"
            " to read from a file; save it again with tensors, numbers and text only"
        )
    first_line = message.strip().splitlines()[0] if message.strip() else type(error).__name__
    if first_line.startswith("Weights only load failed"):  # torch's advice to disable the check
        first_line = "its contents are no pickle of tensors"
    return f"{path} is not a checkpoint, or is damaged or cut off: {first_line[:200]}"
