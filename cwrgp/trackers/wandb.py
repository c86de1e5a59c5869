"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cwrgp.file_io.atomic import write_text

RUN_ID = "wandb_run_id"


class WandbTracker:
    """Logs to one W&B run, also over several starts: its id is kept in the run's folder.

    Project, entity and mode come from W&B's own environment variables (WANDB_PROJECT, WANDB_ENTITY,
    WANDB_MODE).

    Args:
        folder: gets the id and W&B's files; its name is that of the W&B run.
        start_step: the first step of this start; from 0 on, a new W&B run begins.
        config: shown with the run.

    Raises:
        ValueError: W&B does not start, for example because nobody is logged in.
    """

    def __init__(self, folder: Path, *, start_step: int, config: Mapping[str, Any]) -> None:
        import wandb  # an optional package that takes a second to import

        id_file = folder / RUN_ID
        known = id_file.read_text().strip() if start_step and id_file.is_file() else None
        try:
            self._run = wandb.init(
                dir=folder, name=folder.name, id=known, resume="allow", config=dict(config)
            )
        except wandb.Error as error:
            raise ValueError(
                f"Weights & Biases does not start: {error} WANDB_MODE=offline keeps the records "
                "on this machine"
            ) from error
        write_text(id_file, f"{self._run.id}\n")
        # W&B's own step never goes back, so it would drop what a resumed run repeats.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs a record, with its step as "iteration"."""
        self._run.log({"iteration": step, **values})

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Logs pictures, (H, W, 3) uint8 each, with their step as "iteration"."""
        from wandb import Image

        pictures = {name: Image(image) for name, image in images.items()}
        self._run.log({"iteration": step, **pictures})

    def close(self) -> None:
        """Finishes the upload."""
        self._run.finish()
