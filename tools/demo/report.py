"""Writes the demo's page: one HTML file without outside resources, for a phone as for a desk.

What the page says follows from the numbers (`wording.py`): where the pretrained arm does not win by
more than the spread between seeds, the page says that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from markup import section
from report_data import Command, Comparison, ReportData, compare, mean
from report_detection import results, samples
from report_pretraining import conversion, pictures, pretraining
from wording import answer, duration, headline, number, plural, signed, small

_STYLE = Path(__file__).with_name("report.css")
_COPY = """document.querySelectorAll("button").forEach(function (b) { b.onclick = function () {
  var pre = b.previousElementSibling, r = document.createRange(), s = getSelection();
  r.selectNodeContents(pre); s.removeAllRanges(); s.addRange(r);
  b.textContent = document.execCommand("copy") ? "Copied" : "Selected";
  setTimeout(function () { b.textContent = "Copy"; }, 1500); }; });"""


def write_report(path: Path, data: ReportData) -> None:
    """Writes the page; a half-written one never has the final name.

    Args:
        path: the HTML file. Its folder is made if need be.
        data: what to show.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(render(data), encoding="utf-8")
    temporary.replace(path)


def render(data: ReportData) -> str:
    """The page as a string."""
    sections = (
        results(data),
        samples(data),
        pretraining(data),
        pictures(data),
        conversion(data),
        _commands(data.commands),
        _caveats(data),
        _environment(data.environment),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(headline(data))}</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"{_header(data)}\n<main>\n{''.join(sections)}</main>\n"
        "<footer>Written by <code>make demo</code>.</footer>\n"
        f"<script>{_COPY}</script>\n</body>\n</html>\n"
    )


def _header(data: ReportData) -> str:
    box, mask = compare(data, "bbox/AP"), compare(data, "segm/AP")
    knn = data.pretraining.knn_top1
    seconds = [c.seconds for c in data.commands if c.seconds is not None]
    tiles = [
        _ap_tile("Box AP, pretrained", box),
        _ap_tile("Mask AP, pretrained", mask),
        (
            "k-NN accuracy",
            f"{number(knn[-1] if knn else math.nan)} <small>%</small>",
            f"{number(knn[0])} % before, {number(data.pretraining.chance)} % by chance"
            if knn
            else "",
        ),
        (
            "Conversion error",
            small(max(data.conversion.values(), default=math.nan)),
            f"largest feature difference; allowed {small(data.conversion_tolerance)}",
        ),
        ("Time", duration(sum(seconds)) if seconds else "–", "sum over the commands below"),
    ]
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd class="value">{value}</dd>'
        f'<dd class="note">{note}</dd></div>'
        for name, value, note in tiles
    )
    return (
        f"<header>\n<p class='eyebrow'>Self-supervised pretraining with CW-RGP, transferred to "
        f"Mask R-CNN</p>\n<h1>{escape(headline(data))}</h1>\n"
        f'<p class="answer">{answer(data)}</p>\n<dl class="tiles">{cells}</dl>\n</header>'
    )


def _ap_tile(name: str, ap: Comparison) -> tuple[str, str, str]:
    note = f"{number(mean(ap.random))} from random weights; margin {signed(ap.margin)}"
    return name, number(mean(ap.pretrained)), note


def _commands(commands: Sequence[Command]) -> str:
    items = "".join(
        f"<li><p><span>{escape(c.purpose)}</span>"
        f"<time>{duration(c.seconds) if c.seconds is not None else ''}</time></p>"
        f"<div class='code'><pre>{escape(c.line)}</pre>"
        "<button type='button'>Copy</button></div></li>\n"
        for c in commands
    )
    return section(
        "The commands",
        "What <code>make demo</code> ran, from the root of the repository; each line can be run "
        "alone.",
        f"<ol class='commands'>{items}</ol>",
    )


def _caveats(data: ReportData) -> str:
    always = (
        "The data are small and synthetic, and made so that shape and parts matter. Numbers here "
        "are not comparable with published ones, nor with other data sets.",
        "Both arms are trained for the same few iterations. A longer schedule or more labels "
        "usually shrinks the difference between them.",
        f"{plural(min(len(data.random), len(data.pretrained)), 'seed')} per arm give a rough "
        "idea of the spread, not a confidence interval. All seeds share one pretraining run and "
        "one set of labelled images.",
    )
    items = "".join(f"<li>{escape(text)}</li>" for text in always)
    return (
        "<section>\n<h2>What this does not show</h2>\n"
        f"<ul class='caveats'>{items}</ul>\n</section>\n"
    )


def _environment(environment: dict[str, str]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in environment.items())
    return (
        f"<section>\n<h2>Versions and hardware</h2>\n<dl class='facts'>{items}</dl>\n</section>\n"
    )
