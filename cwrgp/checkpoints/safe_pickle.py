"""Unpickling without running code: stand-ins while a file is read, tensors afterwards."""

from __future__ import annotations

import collections
import pickle
import struct
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from cwrgp.checkpoints.pickle_stand_ins import STAND_INS, Array, ForbiddenType


def _load_bytearray8(unpickler: Any) -> None:
    """As bytes: a bytearray would be zeroed, at any length, before the file is found too short."""
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(unpickler.read(size))


class SafeUnpickler(pickle._Unpickler):
    """Unpickles plain containers and stand-ins; every other type raises `ForbiddenType`.

    Python's own unpickler and not its twin in C, which fills gigabytes where a file of 20 bytes
    asks for a high place in the memo.

    Args:
        file: open for reading.
    """

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray8}

    def __init__(self, file: IO[bytes]) -> None:
        # latin1: the arrays of Python 2 pickles are text strings of bytes.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What answers a name; nothing is imported.

        Raises:
            ForbiddenType: the name is not in the allow-list.
        """
        qualified = f"{module}.{name}"
        if qualified in _TYPES:
            return _TYPES[qualified]
        raise ForbiddenType(f"GLOBAL {qualified}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 call to build bytes, without its access to every other codec."""
    if encoding != "latin1":
        raise ForbiddenType(f"GLOBAL codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """What pickles of protocol 2 call for empty bytes."""
    return b""


_TYPES = STAND_INS | {  # of these torch.load has its own
    "_codecs.encode": _encode_latin1,
    "__builtin__.bytes": _no_bytes,
    "collections.OrderedDict": collections.OrderedDict,
}


def make_plain(value: Any, max_bytes: int, done: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Turns arrays into tensors, in place, and removes attributes that could hide a method.

    Args:
        value: what was read.
        max_bytes: what no tensor can take, unless it repeats its elements.
        done: id -> object and result. Each object once, however often it is contained: nesting
            could double it at every level. The object is kept so that no other gets its id.

    Returns:
        ``value``, or its replacement.

    Raises:
        ValueError: a tensor takes more than ``max_bytes``.
    """
    if isinstance(value, str | bytes | int | float | None):
        return value
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    done[id(value)] = value, value
    result = value
    if isinstance(value, dict):
        if type(value) in (collections.OrderedDict, collections.Counter):
            metadata = vars(value).get("_metadata")  # the versions of a torch.nn.Module's parts
            vars(value).clear()
            vars(value).update({"_metadata": metadata} if isinstance(metadata, dict) else {})
        dict.update(value, {k: make_plain(v, max_bytes, done) for k, v in dict.items(value)})
    elif isinstance(value, list):
        value[:] = [make_plain(item, max_bytes, done) for item in value]
    elif type(value) is tuple:
        result = tuple([make_plain(item, max_bytes, done) for item in value])
    elif isinstance(value, Array):
        result = _as_tensor(value.numpy)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        result = _as_tensor(value)
    elif isinstance(value, Tensor):
        _check_size(value, max_bytes)
    done[id(value)] = value, result
    return result


def _as_tensor(array: np.ndarray) -> Tensor:
    """Shares the array's memory where it has the machine's byte order."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _check_size(tensor: Tensor, max_bytes: int) -> None:
    dense = tensor.layout is torch.strided and not tensor.is_meta
    if dense and tensor.numel() * tensor.element_size() > max_bytes:
        raise ValueError(f"a tensor of shape {list(tensor.shape)} is larger than the whole file")
