"""Detectron2's checkpointer, made strict in loading, safe in reading and atomic in writing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from cwrgp.checkpoints.last_checkpoint import read_last_checkpoint, write_last_checkpoint
from cwrgp.checkpoints.writer import write_checkpoint
from d2_transfer.weights import check_weights, describe, forget_weights, read_weights

logger = logging.getLogger(__name__)


class TransferCheckpointer(DetectionCheckpointer):
    """Loads a backbone, or a whole detector, completely or not at all.

    - ``load(path, checkpointables=[])`` (start of fine-tuning) must fill the whole backbone,
      ``load(path)`` (resuming, evaluation) every tensor of the model; see `check_weights`.
    - Files are read without executing anything in them, also ``.pkl``.
    - A process killed while saving leaves the earlier checkpoints and ``last_checkpoint`` intact.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        self._loading, self._complete = path, checkpointables is None
        try:
            return super().load(path, checkpointables)
        finally:
            forget_weights()

    def save(self, name: str, **kwargs: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        path = Path(self.save_dir, f"{name}.pth")
        logger.info(f"Saving checkpoint to {path}")
        write_checkpoint(path, {"model": self.model.state_dict(), **states, **kwargs})
        self.tag_last_checkpoint(path.name)

    def has_checkpoint(self) -> bool:
        return read_last_checkpoint(Path(self.save_dir)) is not None

    def get_checkpoint_file(self) -> str:
        return str(read_last_checkpoint(Path(self.save_dir)) or "")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_last_checkpoint(Path(self.save_dir, last_filename_basename))

    def _load_file(self, filename: str) -> dict[str, Any]:
        return read_weights(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        new = check_weights(checkpoint, self.model.state_dict(), self._loading, self._complete)
        if new:
            logger.info(f"New, with random weights: {describe(new)}")
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Logs what the model does not use; what is missing was logged before loading."""
        if incompatible.unexpected_keys:
            logger.info(f"In the file, but not used: {describe(incompatible.unexpected_keys)}")


def starting_point(output_dir: str, weights: str, resume: bool) -> tuple[str, bool]:
    """The file that a run starts from, and whether it continues the run in ``output_dir``.

    Args:
        output_dir: of the run; its last checkpoint counts only if ``resume``.
        weights: ``MODEL.WEIGHTS``.
        resume: ``--resume``.

    Raises:
        FileNotFoundError: ``last_checkpoint`` names a file that does not exist.
    """
    last = read_last_checkpoint(Path(output_dir)) if resume else None
    return (weights, False) if last is None else (str(last), True)
