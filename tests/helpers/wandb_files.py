"""What a W&B run has written to its file in offline mode."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

# Blocks of 32 KiB; in them chunks: checksum (4 bytes), length (2), type (1: whole, 2: first,
# 3: middle, 4: last), data. The file starts with 7 bytes of its own.
BLOCK, HEADER = 32768, 7


def offline_files(folder: Path) -> list[Path]:
    """The files of the runs in a folder, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def read_records(path: Path) -> list[Any]:
    """The records of a finished run; W&B's own process may still be writing the last of them."""
    deadline = time.monotonic() + 120
    while not (records := _complete_records(path.read_bytes())) or (
        records[-1].WhichOneof("record_type") != "exit"
    ):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)
    return records


def _complete_records(data: bytes) -> list[Any]:
    records, position, started = [], HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER
        if position + length > len(data):
            break
        started += data[position : position + length]
        position += length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(started))
            started = b""
    return records


def read_history(path: Path) -> list[dict[str, float]]:
    """The logged values, record by record, without W&B's own."""
    history = []
    for record in read_records(path):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or ".".join(i.nested_key): i.value_json for i in record.history.item}
            history.append({k: json.loads(v) for k, v in items.items() if not k.startswith("_")})
    return history
