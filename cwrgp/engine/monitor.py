"""Monitors a run: its state in words, waiting for images, and advice when it diverges."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping

from torch import Tensor

from cwrgp.engine.verdict import Evidence, State, judge
from cwrgp.jobs import usable_cores
from cwrgp.models.methods import Method
from cwrgp.similarity import feature_std, negative_cosine, positive_cosine
from cwrgp.spectrum import (
    covariance_spectrum,
    effective_rank,
    normalized_stable_rank,
    numerical_rank,
)

logger = logging.getLogger("cwrgp")

# Samples of a batch that the statistics are of.
_SAMPLES = 256
# Steps over which the loss is averaged: that of one step is noisy.
_WINDOW = 20
# Steps over which a loss that falls at all shows it.
_LONG = 100
# Steps that bad signs, of whichever state, must last before they are warned of: at high rates the
# ranks of runs that learn well fall for some steps and recover. A complete collapse is beyond doubt
# at once.
_LASTING = 20
# Share of the time spent waiting for images.
_DATA_BOUND = 0.3

# What to change, for the states that are warned of.
_ADVICE = {
    State.COMPLETE_COLLAPSE: (
        "All embeddings are nearly equal. Usual causes are too large a {learning rate} and too "
        "short a {warm-up}; some data need another {method}"
    ),
    State.DIMENSIONAL_COLLAPSE: (
        "The embedding has lost dimensions. Usual causes are too large a {learning rate}, PCA "
        "whitening (change the {method}) and an embedding that is too wide (lower the "
        "{embedding width})"
    ),
    State.CHANCE: (
        "Little or nothing is learnt. Crops that are too small to share anything (raise {crop "
        "scale}) and too large or far too small a {learning rate} are the usual causes"
    ),
}


class TrainingMonitor:
    """Statistics of embeddings and encoder output, and what they say, each once.

    Args:
        num_workers: processes that load images; None: no worker processes.
        keys: what the user sets to change "learning rate", "warm-up", "method", "crop scale",
            "embedding width", "eps" or "num_workers", for the advice.
    """

    def __init__(
        self, *, num_workers: int | None = 0, keys: Mapping[str, str] | None = None
    ) -> None:
        self._num_workers = num_workers
        self._keys = keys or {}
        self._states: set[State] = set()
        self._bad_since: int | None = None  # the step
        self._warned_of_data = False
        self._started = False
        self._first_embeddings: Tensor | None = None
        self._first_rank: float | None = None
        self._shares: dict[int, float] = {}
        self._mean_shares: dict[int, float] = {}  # at the records
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
        return values

    def start(self, embeddings: Tensor) -> None:
        """Keeps the embeddings (V, B, D) of the first step, to compare their rank.

        The rank is computed at the first record: by then it is known that the step was finite.
        """
        self._first_embeddings = embeddings[0, :_SAMPLES].clone()

    def verdict(
        self,
        step: int,
        method: Method,
        embeddings: Tensor,
        values: Mapping[str, float],
        losses: Mapping[str, float],
        chance_losses: Mapping[str, float],
        aligned_loss: float = 0.0,
    ) -> State | None:
        """Says in words which state the run is in, once for each state.

        Args:
            step: number of the step.
            method: knows whether it needs full rank.
            embeddings: (V, B, D), of this step.
            values: :meth:`statistics` of this step.
            losses: mean since the last record, by name.
            chance_losses: of unrelated embeddings, for those of the losses where it is known.
            aligned_loss: the sum of these losses for equal views of a sample.

        Returns:
            The state of this record; None where it is too early or too close to tell. A warning
            is given once the records of 20 steps have all been bad.
        """
        if self._first_embeddings is not None:
            spectrum = covariance_spectrum(self._first_embeddings.cpu())
            self._first_rank, self._first_embeddings = float(effective_rank(spectrum)), None
        loss = sum(losses[name] for name in chance_losses)
        chance = sum(chance_losses.values())
        samples, width = min(embeddings.shape[1], _SAMPLES), embeddings.shape[2]
        share = None
        if chance_losses:
            share = self._mean_share(step, (loss - aligned_loss) / (chance - aligned_loss))
        evidence = Evidence(
            step=step,
            std=values["embedding/std"],
            effective_rank=values["embedding/effective_rank"],
            first_effective_rank=self._first_rank,
            numerical_rank=values["embedding/numerical_rank"],
            full_rank=min(samples - 1, width),
            needs_full_rank=method.needs_full_rank,
            share=share,
            earlier_share=None if share is None else self._earlier_share(step, share),
        )
        state = judge(evidence)
        if state is None or state is State.HEALTHY:
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = step
        if state is not None and state not in self._states and self._is_to_be_said(state, step):
            self._states.add(state)
            level = logging.INFO if state is State.HEALTHY else logging.WARNING
            logger.log(level, self._in_words(state, evidence, loss, chance, aligned_loss))
        return state

    def _is_to_be_said(self, state: State, step: int) -> bool:
        if state is State.HEALTHY:
            return not self._states
        lasted = self._bad_since is not None and step - self._bad_since >= _LASTING
        return lasted or state is State.COMPLETE_COLLAPSE

    def _mean_share(self, step: int, share: float) -> float:
        self._shares[step] = share
        self._shares = {s: x for s, x in self._shares.items() if s > step - _WINDOW}
        return sum(self._shares.values()) / len(self._shares)

    def _earlier_share(self, step: int, share: float) -> float | None:
        """That of the last record 100 steps or more before."""
        self._mean_shares[step] = share
        early = [s for s in self._mean_shares if s <= step - _LONG]
        for superseded in early[:-1]:
            del self._mean_shares[superseded]
        return self._mean_shares[early[-1]] if early else None

    def _in_words(
        self, state: State, e: Evidence, loss: float, chance: float, aligned: float
    ) -> str:
        facts = [
            f"standard deviation {e.std:.3g} (1 is isotropic)",
            f"effective rank {e.effective_rank:.3g}",
            f"numerical rank {e.numerical_rank:.0f} of {e.full_rank}",
        ]
        if e.first_effective_rank is not None:
            facts[1] += f", at first {e.first_effective_rank:.3g}"
        if e.share is not None:
            unrelated = f"that of unrelated embeddings, {chance:.3g}"
            if aligned:
                unrelated = f"the way from that of equal views, {aligned:.3g}, to {unrelated}"
            facts.insert(0, f"loss {loss:.3g}, {100 * e.share:.0f} % of {unrelated}")
        unproven = state is State.HEALTHY and e.share is None
        text = f"{'no sign of a collapse' if unproven else state.value}: {'; '.join(facts)}"
        if state is State.HEALTHY:
            return text
        advice = _ADVICE[state]
        if state is State.CHANCE and e.needs_full_rank:
            advice += "; with PCA whitening, the {method} is"
        return text + ". " + re.sub("{(.*?)}", lambda found: self._named(found[1]), advice)

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
        if self._num_workers is None or not started or self._warned_of_data:
            return
        if data_seconds > _DATA_BOUND * step_seconds:
            self._warned_of_data = True
            logger.warning(
                f"{100 * data_seconds / step_seconds:.0f} % of the time is spent waiting for "
                f"images: raise {self._named('num_workers')} (now {self._num_workers}; there are "
                f"{usable_cores()} cores), store smaller images, or use a faster disk",
            )

    def _named(self, what: str) -> str:
        return f"{what} ({self._keys[what]})" if what in self._keys else what


def _statistics(stage: str, x: Tensor) -> dict[str, float]:
    spectrum = covariance_spectrum(x)
    return {
        f"{stage}/std": float(feature_std(x)),
        f"{stage}/effective_rank": float(effective_rank(spectrum)),
        f"{stage}/numerical_rank": float(numerical_rank(spectrum)),
        f"{stage}/normalized_stable_rank": float(normalized_stable_rank(x)),
    }
