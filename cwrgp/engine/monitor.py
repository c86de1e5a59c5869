"""What a run watches in itself: losses that are not finite, collapse, waiting for data."""

from __future__ import annotations

import logging
import math
import os

import torch
from torch import Tensor

from cwrgp.comm import gather, get_world_size
from cwrgp.models.methods import Method
from cwrgp.spectrum import embedding_statistics

logger = logging.getLogger("cwrgp")

# A healthy embedding has a standard deviation near 1 and tens of dimensions.
_COLLAPSED_STD = 0.05
_COLLAPSED_RANK = 1.5
_DATA_BOUND = 0.3


class NonFiniteLoss(FloatingPointError):
    """A loss is NaN or infinite.

    Attributes:
        step: the first such step.
    """

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"the loss is {value} at iteration {step}")
        self.step = step


class Watch:
    """Collects the losses between two records, and warns once of what goes wrong slowly."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._steps: list[int] = []
        self._warned: set[str] = set()
        self._started = False
        self.smallest_eigenvalue = math.nan

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, step: int, loss: Tensor) -> None:
        """Notes the loss of a step; nothing is waited for.

        Raises:
            NonFiniteLoss: on a CPU, where looking costs nothing, before the weights are spoilt.
        """
        self._losses.append(loss.detach())
        self._steps.append(step)
        if loss.device.type == "cpu" and get_world_size() == 1:
            self._check([float(loss)], [step])

    def mean(self) -> float:
        """The mean of the losses since `clear`, over all processes.

        Raises:
            NonFiniteLoss: one of them is not finite.
        """
        losses = gather(torch.stack(self._losses).unsqueeze(0)).mean(0)
        self._check(losses.tolist(), self._steps)
        return float(losses.mean())

    def clear(self) -> None:
        """Forgets the losses."""
        self._losses, self._steps = [], []

    def statistics(self, method: Method, embeddings: Tensor) -> dict[str, float]:
        """Standard deviation and effective rank of a view's embeddings, and the smallest eigenvalue
        of what is whitened; warns of a collapse.

        Args:
            method: asked for the smallest eigenvalue of what it whitens.
            embeddings: (V, B, D).
        """
        values = {k: float(v) for k, v in embedding_statistics(embeddings[0]).items()}
        smallest = method.smallest_eigenvalue(embeddings)
        if smallest is not None:
            self.smallest_eigenvalue = values["embedding/smallest_eigenvalue"] = float(smallest)
        std, rank = values["embedding/std"], values["embedding/effective_rank"]
        if std < _COLLAPSED_STD or rank < _COLLAPSED_RANK:
            self._warn(
                "collapse",
                f"the embedding has collapsed or is about to: standard deviation {std:.3g} "
                f"(1 is healthy), effective rank {rank:.3g} of {embeddings.shape[-1]}",
            )
        return values

    def advice(self, method: Method, embeddings: Tensor) -> str:
        """What to do about a loss that is not finite, and the smallest eigenvalue that speaks for
        it.

        Args:
            method: asked for the smallest eigenvalue of what it whitens.
            embeddings: (V, B, D) of that step.
        """
        smallest = method.smallest_eigenvalue(embeddings)
        if smallest is None:
            return "A smaller SOLVER.BASE_LR helps"
        now = float(smallest)
        found = (
            f"is {now:.3g}"
            if math.isfinite(now)
            else f"was {self.smallest_eigenvalue:.3g} when last looked at"
        )
        return (
            f"The smallest eigenvalue of the covariance {found}: a larger METHOD.CWRGP.EPS "
            "(METHOD.WHITENING.EPS; try 1e-4, needed where a sub-batch may hold an image twice) "
            "or a smaller SOLVER.BASE_LR helps"
        )

    def timing(self, step_seconds: float, data_seconds: float, num_workers: int) -> None:
        """Warns where the steps wait for images; not of the first record, when workers start."""
        started, self._started = self._started, True
        if started and data_seconds > _DATA_BOUND * step_seconds:
            self._warn(
                "data",
                f"{100 * data_seconds / step_seconds:.0f} % of the time is spent waiting for "
                f"images: raise DATA.NUM_WORKERS (now {num_workers}, of {os.cpu_count()} cores "
                "here), store smaller images, or use a faster disk",
            )

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message)

    @staticmethod
    def _check(losses: list[float], steps: list[int]) -> None:
        for loss, step in zip(losses, steps, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLoss(step, loss)
