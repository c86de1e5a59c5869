"""Atomic writing of checkpoint files; `cwrgp.checkpoints.reader` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cwrgp.file_io.atomic import replacing


def write_checkpoint(path: Path, content: Any) -> None:
    """Writes tensors and primitives as ``torch.save`` does, completely or not at all.

    The same content gives the same bytes, whatever the name of the file.

    Args:
        path: the file, in a folder that exists.
        content: nested dictionaries and lists of tensors and primitives.

    Raises:
        OSError: there is no room; see `cwrgp.file_io.atomic.replacing`.
    """
    # An open file, and not its name: torch hides the reason of a failure of its own writer.
    with replacing(path, num_bytes(content)) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def num_bytes(content: Any) -> int:
    """Bytes of the tensors in nested containers; storage that is shared counts once."""
    sizes: dict[tuple[torch.device, int], int] = {}
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            if value.layout is torch.strided and not value.is_meta:
                storage = value.untyped_storage()
                sizes[value.device, storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            left += value
    return sum(sizes.values())
