"""Fine-tuning: Detectron2's DefaultTrainer with strict weights, full resuming and evaluators."""

from __future__ import annotations

import logging
import weakref
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import DatasetEvaluator

from d2_transfer.checkpoint import TransferCheckpointer, starting_point
from d2_transfer.evaluators import build_evaluator

logger = logging.getLogger(__name__)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Logs in one line an error that is not a defect of the code; it is raised afterwards."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError | ValueError | FloatingPointError):
        record.msg, record.args, record.exc_info = f"Training stopped: {error}", None, None
    return True


class Trainer(DefaultTrainer):
    """Trains a detector from a converted encoder.

    What differs from `DefaultTrainer`: weights that do not fill the backbone are an error (see
    `TransferCheckpointer`), checkpoints hold the optimizer whatever the version of Detectron2 and
    are written atomically, and ``train()`` returns the last evaluation's results.
    """

    def build_hooks(self) -> list[HookBase]:
        # DefaultTrainer's constructor has just made its own checkpointer; the hooks keep what they
        # are given here.
        self.checkpointer = TransferCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        return super().build_hooks()

    def resume_or_load(self, resume: bool = True) -> None:
        """Loads the last checkpoint of ``OUTPUT_DIR`` if ``resume``, otherwise ``MODEL.WEIGHTS``.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file does not fill the backbone, or, when resuming, the detector.
        """
        path, resumed = starting_point(self.cfg.OUTPUT_DIR, self.cfg.MODEL.WEIGHTS, resume)
        if resume and not resumed:
            logger.info(f"--resume: {self.cfg.OUTPUT_DIR} has no checkpoint, a new run is started")
        if not path:
            logger.info('MODEL.WEIGHTS is "": the whole detector starts from random weights')
        super().resume_or_load(resume)
        if resumed:
            logger.info(f"Resumed from {path}, at iteration {self.start_iter}")

    def train(self) -> Any:
        """Trains up to ``SOLVER.MAX_ITER``.

        Returns:
            The results of the last evaluation, on the main process; otherwise None.

        Raises:
            OSError: a checkpoint cannot be written, such as on a full disk.
            FloatingPointError: a loss is not finite.
        """
        log = logging.getLogger("detectron2.engine.train_loop")
        log.addFilter(_without_traceback)
        try:
            super().train()
        finally:
            log.removeFilter(_without_traceback)
        return getattr(self, "_last_eval_results", None)

    # The release of Detectron2 0.6 saves neither; its later versions save the same, once more.

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)
