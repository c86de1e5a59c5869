"""Safe reading of a checkpoint file: tensors, arrays, numbers and text. Nothing in it is executed.

The kind of file is auto-detected by its first bytes, never by its name:

- a zip archive, or the older stream format, as ``torch.save`` writes them;
- safetensors;
- a pickle of NumPy arrays, the classic ``.pkl`` of Detectron2's model zoo.

Pickles are read through an allow-list of inert types (`cwrgp.checkpoints.pickle_stand_ins`); a
file that needs another is refused.
"""

from __future__ import annotations

import pickle
import re
import threading
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open

from cwrgp.checkpoints.other_files import START, OtherFile, refuse_other_file
from cwrgp.checkpoints.pickle_stand_ins import STAND_INS
from cwrgp.checkpoints.safe_pickle import SafeUnpickler, make_plain
from cwrgp.file_io.digest import stream_digest
from cwrgp.file_io.path_manager import local_file

# How torch.save's stream format (before 1.6) begins: its magic number, pickled.
_TORCH_STREAM_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_MAX_SAFETENSORS_HEADER = 100_000_000  # the library's own limit
_SMALL = 1 << 20  # bytes that a tensor may take however small its file is

_torch_allow_list = threading.RLock()  # it is global to the process


def read_checkpoint(path: str | Path, *, unsafe: bool = False) -> dict[str, Any]:
    """Reads a checkpoint to CPU memory without executing anything in it.

    Reading takes the memory of the tensors once, or less: those of a zip archive or of safetensors
    are mapped from the file, so that only what is used is read, and those of a pickle share the
    pickle's bytes. (Bytes stored as text, by Python 2 or protocol 2, are held twice while reading.)

    Args:
        path: a file, or a URL that iopath can fetch (``https://...``).
        unsafe: True lets the file run code of its own choice, as ``torch.load`` with
            ``weights_only=False`` and ``pickle.load`` do. For files of one's own making only.

    Returns:
        The dictionary in the file; NumPy arrays are turned into tensors. **The tensors must not be
        written to, nor the file while they are in use.** An object of an inert type
        (``argparse.Namespace``, ...) is there as a stand-in without contents; dictionaries of other
        packages are plain ones. A safetensors file that was made for Detectron2 gives
        ``{"model": tensors, **metadata}``, any other its tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a checkpoint, holds no dictionary, or needs a type
            that is not known to be harmless. The message names it.
    """
    local = local_file(path)
    with local.open("rb") as file:
        return _read(file, local, path, unsafe)


def read_with_digest(path: str | Path, *, unsafe: bool = False) -> tuple[dict[str, Any], str]:
    """`read_checkpoint`, and the SHA-256 of the same file in hexadecimal."""
    local = local_file(path)
    with local.open("rb") as file:
        digest = stream_digest(file)
        return _read(file, local, path, unsafe), digest


def _read(file: IO[bytes], local: Path, path: str | Path, unsafe: bool) -> dict[str, Any]:
    """Reads an open file; torch and safetensors open it once more to map it."""
    file.seek(0)
    start = file.read(START)
    file.seek(0)
    if not start:
        raise ValueError(f"{path} is empty (0 bytes): the file was never written or is cut off")
    refuse_other_file(start, path)
    try:
        with warnings.catch_warnings():
            # Tensors on read-only bytes; a file that torch then refuses in one line anyway.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            if start.startswith(b"PK"):
                content = _read_archive(file, local, unsafe)
            elif start.startswith(_TORCH_STREAM_START):
                content = _torch_load(file, unsafe)
            elif _is_safetensors(start):
                content = _read_safetensors(local)
            else:
                content = _read_pickle(file, unsafe)
            content = make_plain(content, max(local.stat().st_size, _SMALL))
    except OSError:
        raise
    except OtherFile as error:
        raise ValueError(f"{path} is {error}") from None
    except ImportError as error:
        raise ValueError(f"{path} needs a package that is not installed: {error}") from error
    except Exception as error:  # a damaged file can break its reader in any way
        raise ValueError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def _read_archive(file: IO[bytes], local: Path, unsafe: bool) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        damaged = archive.testzip()  # compares checksums, which torch.load does not do
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of its record {damaged!r} does not fit")
    if not any(record.filename.endswith("data.pkl") for record in records):
        inside = ", ".join(repr(record.filename) for record in records[:3]) or "nothing"
        raise OtherFile(f"a zip archive of {inside}: unpack it (unzip) and give the file in it")
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise ValueError("it is a TorchScript program; save its state_dict() instead")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        # torch would map the compressed bytes as if they were numbers.
        raise ValueError("its records were compressed by another program; save it with torch.save")
    file.seek(0)
    # Only a path can be mapped, and torch reads a path that ends in .safetensors as that format.
    return _torch_load(file if local.suffix == ".safetensors" else str(local), unsafe)


def _torch_load(file: IO[bytes] | str, unsafe: bool) -> Any:
    allowed = torch.serialization.safe_globals([(t, name) for name, t in STAND_INS.items()])
    with _torch_allow_list, allowed:
        return torch.load(
            file, map_location="cpu", weights_only=not unsafe, mmap=isinstance(file, str)
        )


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and the header."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= _MAX_SAFETENSORS_HEADER


def _read_safetensors(local: Path) -> dict[str, Any]:
    with safe_open(local, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata: dict[str, Any] = dict(file.metadata() or {})
    if not metadata.keys() & {"matching_heuristics", "__author__"}:
        return tensors
    if "matching_heuristics" in metadata:  # all values of the format are text
        text = metadata["matching_heuristics"]
        if text.lower() not in ("true", "false"):
            raise ValueError(f"matching_heuristics is {text!r}, neither true nor false")
        metadata["matching_heuristics"] = text.lower() == "true"
    return {**metadata, "model": tensors}


def _read_pickle(file: IO[bytes], unsafe: bool) -> Any:
    return pickle.load(file, encoding="latin1") if unsafe else SafeUnpickler(file).load()


def _explain(path: str | Path, error: Exception) -> str:
    message = str(error)
    forbidden = re.search(r"GLOBAL (\S+(?: \S+)?)", message)
    if isinstance(error, pickle.UnpicklingError) and forbidden:
        name = forbidden[1] if forbidden[1].startswith("codec ") else forbidden[1].split()[0]
        return (
            f"{path} is refused: it needs the type {name!r}, which is not among those that are safe"
            " to read from a file; save it again with tensors, numbers and text only"
            " (unsafe=True would read it, and run the code in it)"
        )
    first_line = message.strip().splitlines()[0] if message.strip() else type(error).__name__
    if first_line.startswith("Weights only load failed"):  # torch's advice to disable the check
        first_line = "its contents are no pickle of tensors"
    return f"{path} is not a checkpoint, or is damaged or cut off: {first_line[:200]}"
