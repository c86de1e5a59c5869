"""``MODEL.WEIGHTS``: published checkpoints, checked, converted and proven.

``cwrgp://NAME`` is a row of MODEL_ZOO.md, ``hf://OWNER/NAME[/FILE]`` a file at the Hugging Face
Hub.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import file_lock

from cwrgp.checkpoints.model_zoo import PREFIX, ZOO, Checkpoint, ZooHandler, fetch, get
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.file_io import hugging_face_hub
from cwrgp.file_io.cache import cache_dir
from cwrgp.file_io.digest import file_digest, is_intact, record_digest, recorded_digest
from d2_transfer.conversion import convert_file

logger = logging.getLogger(__name__)

CONVERTER = 2  # to be raised when `convert_file` writes something else for the same input


def fetch_converted(name: str, table: Mapping[str, Checkpoint] = ZOO, force: bool = False) -> Path:
    """A published checkpoint in Detectron2's names, from the cache or made from the original.

    The converted file's name holds the SHA-256 of the original; its own is recorded beside it and
    compared at every use. Several processes may ask at once: one makes it, the others wait.

    Args:
        name: of a row.
        table: the rows.
        force: download and convert it again.

    Raises:
        ValueError: no such name, the file is refused, or the proof failed.
        OSError: it cannot be downloaded.
    """
    original = fetch(name, table, force)
    digest = recorded_digest(original) or record_digest(original)
    output = original.with_name(f"{name}-{digest[:16]}-d2v{CONVERTER}.pkl")
    with file_lock(str(output)):
        if not force and is_intact(output):
            return output
        if not force and output.is_file():
            logger.warning(f"{output} has changed since it was written: it is converted again")
        conversion = convert_file(original, output, get(name, table).source)
        record_digest(output, conversion.sha256_out)
    if proof := conversion.verification:
        logger.info(f"{PREFIX}{name}: converted, largest difference {proof.float64:.1e} (float64)")
    return output


def fetch_converted_from_hub(path: str) -> Path:
    """A file at the hub in Detectron2's names: as it is if it has them, otherwise converted.

    The converted file is cached under the SHA-256 of the original and of the settings beside it.

    Raises:
        MissingPackage: huggingface_hub is not installed.
        ValueError: the file is refused, or the proof failed.
        OSError: it cannot be downloaded.
    """
    original = Path(hugging_face_hub.fetch(path))
    content = read_checkpoint(original)
    if any(name.endswith("res2.0.conv1.weight") for name in _names(content)):
        return original
    beside = [original.with_name(name) for name in hugging_face_hub.SETTINGS]
    digests = [file_digest(file) for file in (original, *beside) if file.is_file()]
    key = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:32]
    output = cache_dir() / "hub" / f"{key}-d2v{CONVERTER}.pkl"
    output.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(output)):
        if not is_intact(output):
            conversion = convert_file(original, output)
            record_digest(output, conversion.sha256_out)
            for warning in conversion.warnings:
                logger.warning(f"{path}: {warning}")
            if proof := conversion.verification:
                logger.info(f"{path}: converted, largest difference {proof.float64:.1e} (float64)")
    return output


def _names(content: Mapping[str, Any]) -> list[str]:
    model = content.get("model")
    return [*map(str, content), *(map(str, model) if isinstance(model, Mapping) else ())]


class ConvertedHubHandler(hugging_face_hub.HubHandler):
    """Lets Detectron2 read ``hf://OWNER/NAME[/FILE]``: the converted file."""

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(fetch_converted_from_hub(path))


class ConvertedZooHandler(ZooHandler):
    """Lets Detectron2 read ``cwrgp://NAME``: the converted file."""

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(fetch_converted(path.removeprefix(PREFIX), self.table, force))


PathManager.register_handler(ConvertedZooHandler())
PathManager.register_handler(ConvertedHubHandler())
