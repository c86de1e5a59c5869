"""The best checkpoint by AP on a validation set, and early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from d2_transfer.weights import read_weights

logger = logging.getLogger(__name__)

BEST = "model_best"
METRIC = "bbox/AP"


class EarlyStop(Exception):
    """AP on the validation set has not risen for too long: the training has ended well."""


class Validation(HookBase):
    """Evaluates on a validation set while training, and on the test set at the end alone.

    The test set is evaluated with the weights of the highest box AP on the validation set, which
    are in ``model_best.pth``, so it has no part in the choice. Records have the names "val/bbox/AP"
    and so on. Registered before the hook that saves checkpoints, so that a run that is resumed
    knows of all evaluations so far.

    Args:
        period: iterations between evaluations; 0: after the last one only.
        validate: evaluates on the validation set; returns its results on the main process.
        test: evaluates on the test sets.
        patience: evaluations in a row without a higher AP after which training ends; 0: never.
    """

    def __init__(
        self,
        period: int,
        validate: Callable[[], Mapping[str, Any] | None],
        test: Callable[[], Mapping[str, Any] | None],
        *,
        patience: int = 0,
    ) -> None:
        self._period, self._validate, self._test = period, validate, test
        self._patience = patience
        self._best, self._best_iteration, self._waited = math.nan, -1, 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self._best, "iteration": self._best_iteration, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self._best, self._best_iteration = state["best"], state["iteration"]
        self._waited = state["waited"]

    @property
    def stopped(self) -> bool:
        """Whether training has ended early."""
        return 0 < self._patience <= self._waited

    def after_step(self) -> None:
        """Evaluates if it is time, saves what is best, and may end the training."""
        done = self.trainer.iter + 1
        last = done == self.trainer.max_iter
        if not last and (self._period <= 0 or done % self._period):
            return
        # Only the main process has results, and all of them go on from the same state.
        records = flatten_results_dict({"val": dict(self._validate() or {})})
        records = comm.all_gather(records)[0]
        self.trainer.storage.put_scalars(**records, smoothing_hint=False)
        self._compare(records.get(f"val/{METRIC}", math.nan), done)
        if self.stopped and not last:
            self.trainer.max_iter = done
            self.trainer.checkpointer.save("model_final", iteration=done - 1)
            raise EarlyStop(
                f"no higher AP on the validation set in {self._waited} evaluations: the best is"
                f" {self._best:.2f}, after {self._best_iteration} iterations"
            )

    def _compare(self, ap: float, done: int) -> None:
        if math.isnan(ap) or ap <= self._best:
            self._waited += 1
            return
        self._best, self._best_iteration, self._waited = ap, done, 0
        self.trainer.checkpointer.save(BEST, iteration=done - 1)

    def after_train(self) -> None:
        """Evaluates on the test sets, with the best weights, unless training has failed."""
        if self.trainer.iter + 1 < self.trainer.max_iter:
            return
        comm.synchronize()  # the file is there
        if self._best_iteration >= 0:
            path = Path(self.trainer.checkpointer.save_dir, f"{BEST}.pth")
            self.trainer.checkpointer.model.load_state_dict(read_weights(str(path))["model"])
            logger.info(
                f"The test set is evaluated with the weights after {self._best_iteration}"
                f" iterations, the best on the validation set (AP {self._best:.2f}): {path}"
            )
        records = flatten_results_dict(dict(self._test() or {}))
        self.trainer.storage.put_scalars(**records, smoothing_hint=False)
