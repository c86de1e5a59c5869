"""Whole pages in a browser: they fit a phone, load nothing, and name every picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated_sets import coco_set
from browser import faults
from finished_trials import write_scenes, write_trials

from d2_transfer.commands import check_data
from d2_transfer.trials.summary import summarize

GOOD = """<!doctype html><html><meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark } body { margin: 0; background: Canvas }</style>
<body>%s</body></html>"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<p>fine</p>", None),
        (f'<img src="{PIXEL}" alt="a dot">', None),
        ('<div style="overflow: auto"><table><td style="min-width: 2000px">a</table></div>', None),
        ('<div style="width: 2000px">a</div>', "the page scrolls sideways"),
        ('<div style="overflow-x: auto"><p style="width: 2000px">a</p></div>', "holds no table"),
        (f'<img src="{PIXEL}">', "an image has no alt"),
        ('<img src="data:image/gif;base64,x" alt="a dot">', "an image is broken: a dot"),
        ("<svg></svg>", "a chart has no alternative text"),
        ('<link rel="stylesheet" href="http://localhost:9/a.css">', "asks for http://localhost:9/"),
        ("<script>missing()</script>", "script: missing is not defined"),
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<style>body { background: white }</style>", "does not follow the scheme"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, content: str, fault: str | None) -> None:
    path = tmp_path / "page.html"
    path.write_text(GOOD % content)
    found = faults(path, widths=[390])
    assert found == [] if fault is None else any(fault in line for line in found), found


@pytest.mark.slow
def test_a_wide_page_has_room_for_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    table = '<table><td style="min-width: 1300px">a</table>'
    path.write_text(GOOD % f'<div style="overflow: auto">{table}</div>')
    assert any("scrolls on a wide page" in line for line in faults(path, widths=[1280]))
    assert faults(path, widths=[390]) == []


@pytest.mark.slow
def test_the_report_of_trials(tmp_path: Path) -> None:
    """All twelve metrics of COCO, boxes and masks, with published rows and pictures."""
    data = write_scenes(tmp_path)
    write_trials(tmp_path / "out", data, **{"SOLVER.MAX_ITER": 100})
    results = summarize(tmp_path / "out")
    metrics = results["arms"]["ours"]["metrics"]
    assert all(metrics[f"{k}/{m}"]["n"] == 3 for k in ("bbox", "segm") for m in ("APs", "APl"))
    assert faults(tmp_path / "out" / "report.html") == []


@pytest.mark.slow
def test_the_report_of_checked_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_set(tmp_path)
    spec = f"coco:{tmp_path / 'ann.json'}:{tmp_path / 'images'}"
    assert check_data.main([spec, "--output", str(tmp_path / "check")]) == 0
    assert faults(tmp_path / "check" / "report.html") == []
