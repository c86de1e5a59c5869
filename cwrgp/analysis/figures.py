"""The figures of an experiment, drawn from its results.json alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cwrgp.report.figures import Series, line_chart, spectrum_chart, strip_chart

Arm = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        title: above it.
        body: the chart.
        caption: one sentence that says what to see.
    """

    title: str
    body: Markup
    caption: str


class Drawing:
    """Draws the figures of an experiment, and writes each to two files.

    Args:
        results: the content of results.json.
        folder: gets ``NAME.svg`` and ``NAME.png``.
    """

    def __init__(self, results: Mapping[str, Any], folder: Path) -> None:
        self.arms: list[Arm] = results["arms"]
        names = list(dict.fromkeys(arm["series"] for arm in self.arms))
        self.styles = {name: number for number, name in enumerate(names)}
        self.places = sorted({arm["x"] for arm in self.arms if arm["x"] is not None})
        self.folder = folder

    @property
    def accuracy_curve(self) -> str:
        """Its key, which depends on whether there are test images."""
        keys = (key for arm in self.arms for key in arm["curves"] if key.startswith("knn"))
        return next(keys, "knn/top1")

    def files(self, name: str) -> list[Path]:
        """Of a figure."""
        return [self.folder / f"{name}.{suffix}" for suffix in ("svg", "png")]

    def final(self, name: str, value: str, label: str, *, scale: float = 1) -> Markup:
        """A row for each arm, a dot for each seed."""
        rows = [
            (a["series"], self.styles[a["series"]], _scaled(a["values"][value]["runs"], scale))
            for a in self.arms
            if value in a["values"]
        ]
        means = "; ".join(f"{n} {_mean(values):.3g}" for n, _, values in rows)
        alt = f"{label}. Means: {means}"
        return strip_chart(rows, x_label=label, alt=alt, files=self.files(name))

    def curves(self, name: str, key: str, label: str, *, scale: float = 1) -> Markup:
        """A value over the iterations: means over the seeds, with the range of the seeds."""
        series = []
        for arm in self.arms:
            if key in arm["curves"]:
                curve = arm["curves"][key]
                runs = [_scaled(y, scale) for y in zip(*curve["y"], strict=True)]
                band = len(curve["y"]) > 1
                series.append(
                    Series(
                        arm["series"],
                        curve["x"],
                        [_mean(values) for values in runs],
                        self.styles[arm["series"]],
                        [min(values) for values in runs] if band else (),
                        [max(values) for values in runs] if band else (),
                    )
                )
        ends = "; ".join(f"{s.label} ends at {s.y[-1]:.3g}" for s in series)
        alt = f"{label} over the iterations. {ends}"
        return line_chart(
            series, x_label="iteration", y_label=label, alt=alt, files=self.files(name)
        )

    def over_places(
        self,
        name: str,
        value: str,
        x_label: str,
        label: str,
        *,
        scale: float = 1,
        y_zero: bool = False,
    ) -> Markup:
        """A value over the horizontal axis of the experiment, with 95 % intervals."""
        series = []
        for who, style in self.styles.items():
            arms = [a for a in self.arms if a["series"] == who and value in a["values"]]
            found = [a["values"][value] for a in arms]
            band = all(v["low"] is not None for v in found)
            series.append(
                Series(
                    who,
                    [self.places.index(a["x"]) for a in arms],
                    _scaled([v["mean"] for v in found], scale),
                    style,
                    _scaled([v["low"] for v in found], scale) if band else (),
                    _scaled([v["high"] for v in found], scale) if band else (),
                    markers=True,
                )
            )
        points = "; ".join(
            f"{s.label} {', '.join(f'{y:.3g}' for y in s.y)}" for s in series if len(s.y)
        )
        return line_chart(
            series,
            x_label=x_label,
            y_label=label,
            alt=f"{label} over {x_label}, from left to right. {points}",
            y_zero=y_zero,
            x_names=[f"{x:g}" for x in self.places],
            files=self.files(name),
        )

    def against(
        self, name: str, x: str, y: str, x_label: str, y_label: str, *, scale: float = 1
    ) -> Markup:
        """One value against another, a point for each arm."""
        series = [
            Series(
                f"weight {arm['x']:g}",
                _scaled([arm["values"][x]["mean"]], scale),
                _scaled([arm["values"][y]["mean"]], 1),
                style,
                markers=True,
            )
            for style, arm in enumerate(self.arms)
            if all(arm["values"].get(key, {}).get("mean") is not None for key in (x, y))
        ]
        points = "; ".join(f"{s.label}: {s.x[0]:.3g} and {s.y[0]:.3g}" for s in series)
        alt = f"{y_label} against {x_label}. {points}"
        return line_chart(
            series, x_label=x_label, y_label=y_label, alt=alt, y_zero=False, files=self.files(name)
        )

    def spectra(self, name: str, stage: str) -> Markup:
        """Eigenvalues of the covariance, of the first seed."""
        spectra = [
            (arm["series"], self.styles[arm["series"]], [v or 0.0 for v in arm["spectra"][stage]])
            for arm in self.arms
        ]
        return spectrum_chart(
            spectra,
            x_label="eigenvalue, largest first",
            y_label="share of the variance",
            alt=f"Spectrum of the {stage}'s covariance: {', '.join(n for n, *_ in spectra)}",
            files=self.files(name),
        )


def figures(results: Mapping[str, Any], folder: Path) -> list[Figure]:
    """Draws the figures of an experiment."""
    return _FIGURES[results["experiment"]](Drawing(results, folder))


def _whitening(d: Drawing) -> list[Figure]:
    return [
        Figure(
            "What was learnt",
            d.final("knn", "knn", "k-NN accuracy of the encoder, %"),
            "Compare PCA with ZCA and Cholesky: the three whiten alike and differ by a rotation.",
        ),
        Figure(
            "Movement of the targets",
            d.curves("volatility", "monitor/target_volatility", "relative movement, %", scale=100),
            "See how far one update moves the whitened targets of a fixed batch: about 141 % is a"
            " target that has nothing to do with the last one.",
        ),
        Figure(
            "Effective rank of the embedding",
            d.curves("embedding_effective_rank", "embedding/effective_rank", "dimensions"),
            "See whose embedding loses dimensions while it trains; the plain loss leaves one.",
        ),
        Figure(
            "Stable rank of the embedding",
            d.curves(
                "embedding_stable_rank",
                "embedding/normalized_stable_rank",
                "% of the width",
                scale=100,
            ),
            "The paper's measure of how white an embedding is. Compare losses of the same width D:"
            " n samples have n / D at most.",
        ),
        Figure(
            "Effective rank of the encoder's output",
            d.curves("encoder_effective_rank", "encoder/effective_rank", "dimensions"),
            "See whether what is lost in the embedding is lost in the encoder as well.",
        ),
        Figure(
            "Stable rank of the encoder's output",
            d.curves(
                "encoder_stable_rank", "encoder/normalized_stable_rank", "% of the width", scale=100
            ),
            "It is low where all features share a large mean.",
        ),
        Figure(
            "Loss",
            d.curves("loss", "total_loss", "loss of a batch"),
            "A loss near 2 is that of unrelated views. A loss near 0 is the sign of a collapse.",
        ),
        Figure(
            "Accuracy in the course of training",
            d.curves("knn_curve", d.accuracy_curve, "k-NN accuracy, %"),
            "Look for losses whose curve stays at its start: nothing is learnt.",
        ),
        Figure(
            "Spectrum of the embedding",
            d.spectra("embedding_spectrum", "embedding"),
            "A cliff is a dimensional collapse; first seed.",
        ),
        Figure(
            "Spectrum of the encoder's output",
            d.spectra("encoder_spectrum", "encoder"),
            "The slower the decay, the more dimensions are used; first seed.",
        ),
    ]


_STABLE = "normalised stable rank of the embedding, %"


def _penalty(d: Drawing) -> list[Figure]:
    rank, weight = "embedding/normalized_stable_rank", "weight of the covariance penalty"
    return [
        Figure(
            "More whitened, less similar",
            d.against(
                "negatives",
                rank,
                "embedding/negative_cosine",
                _STABLE,
                "mean cosine of negatives",
                scale=100,
            ),
            "Further right is more whitened; lower is less similar negatives.",
        ),
        Figure(
            "Whiteness and accuracy",
            d.against("rank_knn", rank, "knn", _STABLE, "k-NN accuracy, %", scale=100),
            "See where the best accuracy lies: the whitest embedding need not have it.",
        ),
        Figure(
            "Whiteness by weight",
            d.over_places("rank", rank, weight, _STABLE, scale=100, y_zero=True),
            "A larger weight makes the embedding whiter, until it shrinks it instead.",
        ),
        Figure(
            "Accuracy by weight",
            d.over_places("knn", "knn", weight, "k-NN accuracy, %"),
            "See whether any weight beats none, at the left end.",
        ),
    ]


def _batch_size(d: Drawing) -> list[Figure]:
    axis = "batch size"
    return [
        Figure(
            "Accuracy by batch size",
            d.over_places("knn", "knn", axis, "k-NN accuracy, %"),
            "See which line falls towards small batches, at the left.",
        ),
        Figure(
            "Effective rank of the embedding",
            d.over_places("rank", "embedding/effective_rank", axis, "dimensions", y_zero=True),
            "A covariance of few samples is a bad estimate, and whitening by it costs dimensions.",
        ),
        Figure(
            "Effective rank of the encoder's output",
            d.over_places(
                "encoder_rank", "encoder/effective_rank", axis, "dimensions", y_zero=True
            ),
            "The same before the projector, where transfer takes its features from.",
        ),
    ]


def _groups(d: Drawing) -> list[Figure]:
    axis = "groups of channels"
    return [
        Figure(
            "Accuracy by number of groups",
            d.over_places("knn", "knn", axis, "k-NN accuracy, %"),
            "The distance of the lines is what a fresh random partition in each step brings; one"
            " group has no partition.",
        ),
        Figure(
            "Effective rank of the embedding",
            d.over_places("rank", "embedding/effective_rank", axis, "dimensions", y_zero=True),
            "More groups leave each fewer channels to decorrelate the samples with.",
        ),
        Figure(
            "Stable rank of the embedding",
            d.over_places(
                "stable_rank",
                "embedding/normalized_stable_rank",
                axis,
                _STABLE,
                scale=100,
                y_zero=True,
            ),
            "How white the embedding is, by the paper's measure.",
        ),
    ]


_FIGURES: dict[str, Callable[[Drawing], list[Figure]]] = {
    "whitening": _whitening,
    "penalty": _penalty,
    "batch-size": _batch_size,
    "groups": _groups,
}


def _scaled(values: Sequence[float | None], scale: float) -> list[float]:
    return [math.nan if value is None else scale * value for value in values]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
