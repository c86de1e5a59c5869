"""Monitors a run: collapse, waiting for images, and advice when it diverges."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping

from torch import Tensor

from cwrgp.models.methods import Method
from cwrgp.similarity import feature_std, negative_cosine, positive_cosine
from cwrgp.spectrum import (
    covariance_spectrum,
    effective_rank,
    normalized_stable_rank,
    numerical_rank,
)

logger = logging.getLogger("cwrgp")

# A healthy embedding has a standard deviation near 1 and tens of dimensions.
_COLLAPSED_STD = 0.05
_COLLAPSED_RANK = 1.5
# A loss above this share of that of unrelated embeddings, with an effective rank below this share
# of the first one: nothing is learnt, and the embedding is on its way to a collapse.
_CHANCE_LOSS = 0.95
_FALLEN_RANK = 0.5
# Steps before which both are normal.
_SETTLING_STEPS = 40
# Samples of a batch that the statistics are of.
_SAMPLES = 256
# Share of the time spent waiting for images.
_DATA_BOUND = 0.3


class TrainingMonitor:
    """Statistics of the embeddings, and warnings, each given once.

    Args:
        num_workers: processes that load images; None: no worker processes.
        keys: what the user sets to change "learning rate", "eps", "num_workers" or "crop scale",
            for the advice.
    """

    def __init__(
        self, *, num_workers: int | None = 0, keys: Mapping[str, str] | None = None
    ) -> None:
        self._num_workers = num_workers
        self._keys = keys or {}
        self._warned: set[str] = set()
        self._started = False
        self._first: Tensor | None = None
        self.smallest_eigenvalue = math.nan

    def statistics(
        self, method: Method, embeddings: Tensor, features: Tensor | None = None
    ) -> dict[str, float]:
        """Indicators of the embeddings and of the encoder's output, of at most 256 samples, and the
        smallest eigenvalue of the covariances that are inverted.

        Args:
            method: computes that eigenvalue.
            embeddings: (V, B, D).
            features: (B, F), of the encoder; None: left out.
        """
        # fp64 is slow on most GPUs, and the samples of a batch are in random order.
        sample = embeddings[:2, :_SAMPLES].cpu()
        values = _statistics("embedding", sample[0])
        values["embedding/negative_cosine"] = float(negative_cosine(sample[0]))
        if len(sample) > 1:
            values["embedding/positive_cosine"] = float(positive_cosine(*sample))
        if features is not None:
            values |= _statistics("encoder", features[:_SAMPLES].cpu())
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

    def start(self, embeddings: Tensor) -> None:
        """Keeps the embeddings (V, B, D) of the first step, to compare their rank."""
        self._first = embeddings[0]

    def learning(
        self,
        step: int,
        losses: Mapping[str, float],
        effective_rank: float,
        chance_losses: Mapping[str, float],
    ) -> None:
        """Warns if the loss stays at chance while the effective rank falls.

        Args:
            step: number of the step.
            losses: of this step, by name.
            effective_rank: of the embeddings of this step.
            chance_losses: of unrelated embeddings, for those of the losses where it is known.
        """
        # A resumed run has no first step, and is past the beginning.
        if not chance_losses or self._first is None or step + 1 < _SETTLING_STEPS:
            return
        loss, chance_loss = sum(losses[name] for name in chance_losses), sum(chance_losses.values())
        first = _statistics("embedding", self._first)["embedding/effective_rank"]
        if loss > _CHANCE_LOSS * chance_loss and effective_rank < _FALLEN_RANK * first:
            self._warn(
                "chance",
                f"nothing is learnt: the loss, {loss:.3g}, is near that of unrelated embeddings, "
                f"{chance_loss:.3g}, and the effective rank has fallen from {first:.3g} to "
                f"{effective_rank:.3g}. Crops that are too small to share anything (raise "
                f"{self._named('crop scale')}) and too large a {self._named('learning rate')} are "
                "the usual causes",
            )

    def advice(self, method: Method, embeddings: Tensor) -> str:
        """What to do about a step that is not finite, and the smallest eigenvalue as evidence.

        Args:
            method: computes the smallest eigenvalue of the covariances that it inverts, if any.
            embeddings: (V, B, D) of that step.
        """
        rate = f"a smaller {self._named('learning rate')}"
        smallest = method.smallest_eigenvalue(embeddings)
        if smallest is None:
            return f"Try {rate}"
        now = float(smallest)
        found = (
            f"is {now:.3g}"
            if math.isfinite(now)
            else f"was {self.smallest_eigenvalue:.3g} at the last record"
        )
        return (
            f"The smallest eigenvalue of the covariance {found}: try a larger "
            f"{self._named('eps')}, such as 1e-4, which a sub-batch with the same image twice "
            f"needs, or {rate}"
        )

    def timing(self, step_seconds: float, data_seconds: float) -> None:
        """Warns if the steps wait for images.

        The first record does not count: the workers start during it.
        """
        started, self._started = self._started, True
        if self._num_workers is not None and started and data_seconds > _DATA_BOUND * step_seconds:
            self._warn(
                "data",
                f"{100 * data_seconds / step_seconds:.0f} % of the time is spent waiting for "
                f"images: raise {self._named('num_workers')} (now {self._num_workers}; there are "
                f"{os.cpu_count()} cores), store smaller images, or use a faster disk",
            )

    def _named(self, what: str) -> str:
        return f"{what} ({self._keys[what]})" if what in self._keys else what

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message)


def _statistics(stage: str, x: Tensor) -> dict[str, float]:
    spectrum = covariance_spectrum(x)
    return {
        f"{stage}/std": float(feature_std(x)),
        f"{stage}/effective_rank": float(effective_rank(spectrum)),
        f"{stage}/numerical_rank": float(numerical_rank(spectrum)),
        f"{stage}/stable_rank": float(normalized_stable_rank(x)),
    }
