"""The report's sentences and numbers as text; what they claim follows from the data alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from report_data import Comparison, ReportData, compare, deviation, mean


def number(value: float) -> str:
    """One decimal; a dash if there is no value."""
    return f"{value:.1f}".replace("-", "−") if math.isfinite(value) else "–"


def signed(value: float) -> str:
    """One decimal with its sign; a dash if there is no value."""
    return f"{value:+.1f}".replace("-", "−") if math.isfinite(value) else "–"


def small(value: float) -> str:
    """A small positive number as 3.1 × 10⁻⁶, in HTML."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if -2 <= power <= 3:
        return f"{value:.3g}"
    exponent = str(power).replace("-", "−")
    return f'<span class="number">{value / 10.0**power:.1f} × 10<sup>{exponent}</sup></span>'


def plus_minus(values: Sequence[float]) -> str:
    """Mean ± standard deviation as HTML; the mean alone if there is no deviation."""
    spread = deviation(values)
    text = number(mean(values))
    return f"{text} <small>± {number(spread)}</small>" if math.isfinite(spread) else text


def plural(count: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """ "8 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def effective_rank(eigenvalues: Sequence[float]) -> float:
    """Exponential of the normalised spectrum's entropy (Roy and Vetterli, 2007); NaN of nothing."""
    positive = [v for v in eigenvalues if v > 0]
    if not positive:
        return math.nan
    total = math.fsum(positive)
    return math.exp(-math.fsum(v / total * math.log(v / total) for v in positive))


def headline(data: ReportData) -> str:
    """The page's title."""
    return {
        "wins": "Pretraining without labels helped this detector",
        "undecided": "Pretraining did not clearly help this detector",
        "loses": "Pretraining hurt this detector",
        "unknown": "Pretrained or random weights: no verdict from these runs",
    }[compare(data, "bbox/AP").verdict]


def verdict_word(ap: Comparison) -> tuple[str, str]:
    """A table cell that answers "is the margin larger than the spread?", and its CSS class."""
    return {
        "wins": ("yes", "yes"),
        "undecided": ("no", "no"),
        "loses": ("worse", "no"),
        "unknown": ("?", "no"),
    }[ap.verdict]


def answer(data: ReportData) -> str:
    """The page's first paragraph, as HTML."""
    sentences = [_box_sentence(compare(data, "bbox/AP"))]
    mask = compare(data, "segm/AP")
    if any(math.isfinite(v) for v in (*mask.random, *mask.pretrained)):
        sentences.append(_mask_sentence(mask))
    sentences.append(_knn_sentence(data.pretraining.knn_top1))
    return " ".join(s for s in sentences if s)


def _seeds(ap: Comparison) -> str:
    if len(ap.random) == len(ap.pretrained):
        return plural(len(ap.random), "seed")
    return f"{len(ap.random)} and {len(ap.pretrained)} seeds"


def _box_sentence(ap: Comparison) -> str:
    random, pretrained = (
        f"<b>{plus_minus(v).replace('<small>', '').replace('</small>', '')}</b>"
        for v in (ap.random, ap.pretrained)
    )
    over = f"mean ± standard deviation over {_seeds(ap)}"
    if ap.verdict == "unknown":
        if min(len(ap.random), len(ap.pretrained)) < 2:
            return (
                f"Box AP was {random} from random weights and {pretrained} from pretrained ones, "
                "but with fewer than two seeds per arm there is no spread to compare the "
                "difference with: this is an observation, not a result."
            )
        return "Box AP cannot be compared: at least one run has no value for it."
    margin, spread = f"{signed(ap.margin)} points", f"{number(ap.spread)} points"
    if ap.verdict == "undecided":
        return (
            f"Pretraining does not change box AP by more than the spread between seeds: {random} "
            f"from random weights, {pretrained} from pretrained ones ({over}). The margin of "
            f"{margin} is within the spread of {spread}, so these runs show no benefit."
        )
    verb = "lifted" if ap.verdict == "wins" else "lowered"
    return (
        f"Pretraining {verb} box AP from {random} to {pretrained} ({over}). The margin of "
        f"{margin} is larger than the spread between seeds, {spread}."
    )


def _mask_sentence(ap: Comparison) -> str:
    change = f"from {number(mean(ap.random))} to {number(mean(ap.pretrained))}"
    if ap.verdict == "unknown":
        return f"Mask AP went {change}."
    if ap.verdict == "undecided":
        return f"Mask AP went {change}, which does not exceed its spread of {number(ap.spread)}."
    verb = "rose" if ap.verdict == "wins" else "fell"
    return (
        f"Mask AP {verb} {change}, a margin of {signed(ap.margin)} "
        f"against a spread of {number(ap.spread)}."
    )


def _knn_sentence(top1: Sequence[float]) -> str:
    if len(top1) < 2:
        return ""
    first, last = top1[0], top1[-1]
    if last > first:
        verb = "rose"
    elif last < first:
        verb = "fell"
    else:
        return f"k-NN accuracy of the features did not move from {number(first)} %."
    return (
        f"k-NN accuracy of the features {verb} from {number(first)} % with random weights to "
        f"{number(last)} %."
    )
