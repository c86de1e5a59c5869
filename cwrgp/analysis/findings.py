"""Whether what the paper found shows in the results of an experiment.

"Seen" means that every seed of the one setting lies on the right side of every seed of the other,
and that the means differ: accuracies by more than a point, cosines by more than 0.05, all else by a
factor of 1.5 or more. With one seed that is the weakest of evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cwrgp.statistics import MARGIN

Arms = Mapping[tuple[str, float | None], Mapping[str, Any]]

KNN, RANK = "knn", "embedding/normalized_rank"
STABLE_RANK, NEGATIVES = "embedding/normalized_stable_rank", "embedding/negative_cosine"
VOLATILITY = "monitor/target_volatility"
_FACTOR = 1.5
_COSINES = 0.05
_JUMP = 0.5  # of a target's norm; the square root of 2 is a target unrelated to the last one


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what was seen of it.

    Attributes:
        claim: as a sentence.
        seen: whether it shows.
        text: the numbers.
    """

    claim: str
    seen: bool
    text: str


def findings(experiment: str, arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The findings of an experiment, as plain values; those about accuracy need labels.

    Args:
        experiment: its name.
        arms: all of them, see `cwrgp.analysis.results.collect`.
    """
    by_name = {(arm["series"], arm["x"]): arm["values"] for arm in arms}
    return [asdict(finding) for finding in _FINDINGS[experiment](by_name)]


def _whitening(arms: Arms) -> list[Finding]:
    pca, zca, cholesky = (arms[name, None] for name in ("PCA", "ZCA", "Cholesky"))
    both = (zca, cholesky)
    trio = {"PCA": pca, "ZCA": zca, "Cholesky": cholesky}
    found = [
        Finding(
            "The targets of PCA whitening jump from one update to the next.",
            (pca[VOLATILITY]["mean"] or 0) > _JUMP
            and all(_far_above(pca[VOLATILITY], other[VOLATILITY]) for other in both),
            "Mean movement of the targets of a fixed batch in one update, relative to their norm,"
            f" over the second half of the run: {_list(trio, VOLATILITY, '{:.0%}')}.",
        ),
        Finding(
            "The embedding of PCA whitening loses dimensions; those of ZCA and Cholesky keep more.",
            all(_far_above(other[RANK], pca[RANK]) for other in both),
            f"Numerical rank of the embedding, of its width: {_list(trio, RANK, '{:.0%}')}.",
        ),
    ]
    if KNN in pca:
        seen = all(_better(other[KNN], pca[KNN]) for other in both)
        text = f"k-NN accuracy: {_list(trio, KNN, '{:.1f} %')}."
        found.append(
            Finding("PCA whitening learns less than ZCA and Cholesky whitening.", seen, text)
        )
    return found


def _penalty(arms: Arms) -> list[Finding]:
    # By whiteness, not by weight: a large weight shrinks the embedding, which ends the penalty.
    whiteness = {
        x: mean
        for (_, x), values in arms.items()
        if x is not None and (mean := values[STABLE_RANK]["mean"]) is not None
    }
    if len(whiteness) < 2:
        return []
    weights = sorted(whiteness, key=whiteness.__getitem__)
    least, most = (arms["CW-RGP", weights[n]] for n in (0, -1))
    ends = (
        f"From the least white embedding (weight {weights[0]:g}) to the whitest ({weights[-1]:g})"
    )

    def change(name: str, form: str) -> str:
        return f"{_mean(least, name, form)} to {_mean(most, name, form)}"

    whiter = _far_above(most[STABLE_RANK], least[STABLE_RANK])
    less_similar = _above(least[NEGATIVES], most[NEGATIVES], by=_COSINES)
    found = [
        Finding(
            "The more whitened the embedding, the less similar are negatives.",
            whiter and less_similar,
            f"{ends}, the normalised stable rank went from {change(STABLE_RANK, '{:.4f}')}, and the"
            f" mean cosine of negatives from {change(NEGATIVES, '{:.2f}')}.",
        )
    ]
    if KNN in least:
        text = f"{ends}, the k-NN accuracy went from {change(KNN, '{:.1f} %')}."
        claim = "The more whitened embedding is the worse representation."
        found.append(Finding(claim, whiter and _better(least[KNN], most[KNN]), text))
    return found


def _batch_size(arms: Arms) -> list[Finding]:
    if not _have_accuracy(arms):
        return []
    sizes = sorted({x for _, x in arms if x is not None})
    small, large = sizes[0], sizes[-1]
    channel, batch = (
        [arms[name, size][KNN] for size in (small, large)] for name in ("CW-RGP", "batch whitening")
    )
    return [
        Finding(
            "Channel whitening holds its accuracy at small batches, where batch whitening fails.",
            _better(channel[0], batch[0])
            and _better(batch[1], batch[0])
            and _holds(channel[0], channel[1]),
            f"k-NN accuracy at a batch of {small:g} and of {large:g}: CW-RGP"
            f" {channel[0]['mean']:.1f} and {channel[1]['mean']:.1f} %, batch whitening"
            f" {batch[0]['mean']:.1f} and {batch[1]['mean']:.1f} %.",
        )
    ]


def _groups(arms: Arms) -> list[Finding]:
    if not _have_accuracy(arms):
        return []
    groups = sorted(x for name, x in arms if name == "random" and x is not None)
    if not groups:
        return []
    pairs = {g: (arms["random", g][KNN], arms["fixed", g][KNN]) for g in groups}
    text = "; ".join(
        f"{g:g} groups {random['mean']:.1f} and {fixed['mean']:.1f} %"
        for g, (random, fixed) in pairs.items()
    )
    return [
        Finding(
            "Random groups help.",
            all(_better(random, fixed) for random, fixed in pairs.values()),
            f"k-NN accuracy with random and with fixed groups: {text}.",
        )
    ]


_FINDINGS: dict[str, Callable[[Arms], list[Finding]]] = {
    "whitening": _whitening,
    "penalty": _penalty,
    "batch-size": _batch_size,
    "groups": _groups,
}


def _above(a: Mapping[str, Any], b: Mapping[str, Any], *, by: float = 0) -> bool:
    """Whether every seed of ``a`` is above every seed of ``b``, and the mean by more than ``by``; a
    run without a value is not."""
    if None in (*a["runs"], *b["runs"]):
        return False
    return min(a["runs"]) > max(b["runs"]) and a["mean"] - b["mean"] > by


def _far_above(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """The same for positive values: the means also differ by `_FACTOR`."""
    return _above(a, b) and a["mean"] >= _FACTOR * b["mean"]


def _better(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """The same for accuracies in percent, which also differ by more than `MARGIN`."""
    return _above(a, b, by=MARGIN)


def _holds(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether an accuracy in percent is not below another one by more than `MARGIN`, on average."""
    if None in (a["mean"], b["mean"]):
        return False
    return bool(a["mean"] >= b["mean"] - MARGIN)


def _have_accuracy(arms: Arms) -> bool:
    return all(KNN in values for values in arms.values())


def _mean(values: Mapping[str, Any], name: str, form: str) -> str:
    mean = values[name]["mean"]
    return "not finite" if mean is None else form.format(mean)


def _list(arms: Mapping[str, Mapping[str, Any]], name: str, form: str) -> str:
    return ", ".join(f"{arm} {_mean(values, name, form)}" for arm, values in arms.items())
