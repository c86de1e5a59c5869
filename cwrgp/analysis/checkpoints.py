"""results.json and the page of checkpoints side by side.

The wording is in ``checkpoints.html.j2``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image
from scipy import stats

from cwrgp.analysis.results import RESULTS
from cwrgp.analysis.stages import STAGES
from cwrgp.file_io.atomic import write_text
from cwrgp.report import page, text
from cwrgp.report.figures import Series, line_chart, spectrum_chart

SCHEMA = 1
_TEMPLATE = Path(__file__).with_name("checkpoints.html.j2")
_MIN_FOR_CORRELATION = 4
# Of the last stage: name of an indicator -> heading.
_COLUMNS = {
    "numerical_rank": "numerical rank",
    "effective_rank": "effective rank",
    "rankme": "RankMe",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "negative_cosine": "negatives",
    "feature_std": "standard deviation",
}
_PREDICTORS = {"rankme": "RankMe", "effective_rank": "effective rank"}


def collect(
    records: Mapping[str, Mapping[str, Any]],
    *,
    data: str,
    images: Sequence[str],
    unreadable: Mapping[str, str],
    queries: Sequence[int],
    trials: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        records: of each checkpoint by name.
        data: folder of the images.
        images: their names.
        unreadable: files that were drawn as well but cannot be read, and why.
        queries: numbers of those whose neighbours are shown.
        trials: ``file``; ``protocol``; ``deviations`` from it; ``metric``; ``ap``: checkpoint ->
            ``mean``, ``std``, ``n``, ``arm``, ``weights``; or None.

    Returns:
        ``schema``; ``kind``: "checkpoints"; ``data``; ``images``; ``unreadable``; ``queries``;
        ``trials``, with ``correlation`` where four checkpoints or more have an AP: Spearman's, of
        each predictor, null where all its values or all AP are equal;
        ``checkpoints``: name -> ``path``, ``sha256``, ``arch``, ``stem``, ``image_size``,
        ``source``, ``stages``: stage -> ``width``, ``indicators``, ``spectrum``;
        ``neighbours``: of each query, numbers of images. What is not finite is null.
    """
    correlation: dict[str, float | None] = {}
    if trials is not None and len(trials["ap"]) >= _MIN_FOR_CORRELATION:
        aps = [ap["mean"] for ap in trials["ap"].values()]
        for name in _PREDICTORS:
            values = [records[c]["stages"][STAGES[-1]]["indicators"][name] for c in trials["ap"]]
            varied = len(set(values)) > 1 < len(set(aps))
            correlation[name] = float(stats.spearmanr(values, aps).statistic) if varied else None
    content = {
        "schema": SCHEMA,
        "kind": "checkpoints",
        "data": data,
        "images": list(images),
        "unreadable": dict(unreadable),
        "queries": list(queries),
        "trials": None if trials is None else {**trials, "correlation": correlation},
        "checkpoints": dict(records),
    }
    finite: dict[str, Any] = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return finite


def write_outputs(
    folder: Path, results: Mapping[str, Any], pictures: Mapping[int, Image.Image]
) -> None:
    """Writes results.json, figures/NAME.svg and .png, and report.html.

    Args:
        folder: gets the files; made if needed.
        results: what :func:`collect` returns.
        pictures: queries and neighbours by number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (folder / "figures").glob("transfer_*"):  # of an analysis with trials
        stale.unlink()
    write_text(folder / RESULTS, json.dumps(results, indent=1))
    checkpoints = results["checkpoints"]
    styles = {name: number for number, name in enumerate(checkpoints)}
    html = page.render(
        _TEMPLATE,
        results=results,
        sizes=sorted({record["image_size"] for record in checkpoints.values()}),
        styles=styles,
        ranks=_ranks(checkpoints, styles, folder),
        spectra=[(stage, _spectrum(stage, checkpoints, styles, folder)) for stage in STAGES],
        transfer=_transfer(results, styles, folder),
        head=["", *_COLUMNS.values()],
        rows=[_row(name, record) for name, record in checkpoints.items()],
        neighbours=[_sheet(place, results, pictures) for place in range(len(results["queries"]))],
    )
    page.write_page(folder / "report.html", html)


def _files(folder: Path, name: str) -> list[Path]:
    return [folder / "figures" / f"{name}.{suffix}" for suffix in ("svg", "png")]


def _last(record: Mapping[str, Any]) -> Mapping[str, float | None]:
    indicators: Mapping[str, float | None] = record["stages"][STAGES[-1]]["indicators"]
    return indicators


def _row(name: str, record: Mapping[str, Any]) -> list[str]:
    cells = [_shown(_last(record)[key]) for key in _COLUMNS]
    return [name, *cells]


def _shown(value: float | None) -> str:
    return text.DASH if value is None else f"{value:.3g}".replace("-", "−")


def _ranks(
    checkpoints: Mapping[str, Mapping[str, Any]], styles: Mapping[str, int], folder: Path
) -> Markup:
    series = []
    for name, record in checkpoints.items():
        shares = [
            100 * record["stages"][s]["indicators"]["effective_rank"] / record["stages"][s]["width"]
            for s in STAGES
        ]
        series.append(Series(name, range(4), shares, styles[name], markers=True))
    values = "; ".join(f"{s.label} {', '.join(f'{y:.3g}' for y in s.y)}" for s in series)
    return line_chart(
        series,
        x_label="stage",
        y_label="effective rank, % of the channels",
        alt=f"Effective rank of the stages in percent of their channels. {values}",
        x_names=STAGES,
        files=_files(folder, "ranks"),
    )


def _spectrum(
    stage: str,
    checkpoints: Mapping[str, Mapping[str, Any]],
    styles: Mapping[str, int],
    folder: Path,
) -> Markup:
    return spectrum_chart(
        [(n, styles[n], r["stages"][stage]["spectrum"]) for n, r in checkpoints.items()],
        x_label="eigenvalue, largest first",
        y_label="share of the variance",
        alt=f"Spectrum of the covariance of {stage}: {', '.join(checkpoints)}",
        files=_files(folder, f"spectrum_{stage}"),
    )


def _transfer(
    results: Mapping[str, Any], styles: Mapping[str, int], folder: Path
) -> list[tuple[str, Markup]]:
    """AP against each predictor, a point for each checkpoint, with the trials' deviation."""
    trials = results["trials"]
    if trials is None:
        return []
    changed = " (changed)" if trials["deviations"] else ""
    label = f"{trials['metric']}, %, {trials['protocol']}{changed}"
    charts = []
    for key, name in _PREDICTORS.items():
        points = {
            c: (value, ap["mean"], ap["std"] or 0.0)
            for c, ap in trials["ap"].items()
            if (value := _last(results["checkpoints"][c])[key]) is not None
        }
        chart = line_chart(
            [
                Series(c, [x], [y], styles[c], [y - std], [y + std], markers=True)
                for c, (x, y, std) in points.items()
            ],
            x_label=f"{name} of layer4",
            y_label=label,
            alt=f"{label} against {name}. "
            + "; ".join(f"{c} {x:.3g} and {y:.3g}" for c, (x, y, _) in points.items()),
            y_zero=False,
            files=_files(folder, f"transfer_{key}"),
        )
        charts.append((f"{trials['metric']} and {name}", chart))
    return charts


def _sheet(
    place: int, results: Mapping[str, Any], pictures: Mapping[int, Image.Image]
) -> tuple[Markup, list[tuple[str, list[Markup]]]]:
    """A query and its neighbours under each checkpoint."""
    query, names = results["queries"][place], results["images"]
    rows = []
    for name, record in results["checkpoints"].items():
        found = record["neighbours"][place]
        shown = [
            page.picture(pictures[i], f"{names[i]}, neighbour {rank} under {name}")
            for rank, i in enumerate(found, start=1)
        ]
        rows.append((name, shown))
    return page.picture(pictures[query], f"{names[query]}, query"), rows
