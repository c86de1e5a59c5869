"""The table of published results, and its reader's checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY

from cwrgp.checkpoints.model_zoo import ZOO
from d2_transfer.trials.published import (
    Published,
    Value,
    protocols,
    published_for,
    read_published,
)

ENTRY = {"protocol": "p", "method": "m", "box": {"AP": 1}, "source": "s"}


def read(folder: Path, *entries: Any) -> list[Published]:
    file = folder / "published.yaml"
    file.write_text(yaml.safe_dump(list(entries)))
    return read_published(file, ["p", "protocol"])


def test_the_numbers_of_cwrgp() -> None:
    (row,) = [r for r in published_for("pascal_voc_R_50_C4_24k") if r.method.startswith("CW-RGP")]
    assert row.box == {"AP50": Value(82.2, 0.07), "AP": Value(57.2, 0.1), "AP75": Value(63.8, 0.11)}
    assert not row.mask
    (row,) = [r for r in published_for("coco_R_50_C4_2x") if r.method.startswith("CW-RGP")]
    assert [row.mask[m].mean for m in ("AP50", "AP", "AP75")] == [57.3, 35.5, 37.9]


@pytest.mark.parametrize("row", read_published(), ids=lambda row: f"{row.protocol}, {row.method}")
def test_a_row_can_be_true_and_looked_up(row: Published) -> None:
    """AP averages over thresholds from .5 on, and a mask is harder than its box."""
    for table in (row.box, row.mask):
        means = {metric: value.mean for metric, value in table.items()}
        assert means.get("AP75", 0) <= means.get("AP50", 100) >= means.get("AP", 0)
    assert all(value.mean < row.box[metric].mean for metric, value in row.mask.items())
    assert bool(row.mask) == row.protocol.startswith("coco_R")
    assert re.search(r"table|README|model zoo|MODELZOO", row.source), row.source
    assert "arXiv" in row.source or "'s " in row.source  # a paper, or whose page


def test_the_zoo_has_the_same_numbers() -> None:
    for row in ZOO.values():
        for text in filter(None, (row.voc, row.coco_box, row.coco_mask)):
            numbers = [float(part.split(" ± ")[0]) for part in text.split(" / ")]
            tables = [t for r in read_published() for t in (r.box, r.mask)]
            found = [[t[m].mean for m in ("AP50", "AP", "AP75")] for t in tables if len(t) == 3]
            assert numbers in found, (row.name, text)


@pytest.mark.parametrize("protocol", protocols())
def test_a_header_announces_numbers_where_there_are_some(protocol: str) -> None:
    header = (REPOSITORY / "configs" / "detection" / f"{protocol}.yaml").read_text()
    rows = published_for(protocol.removesuffix("_msra"))
    assert ("# Expected (published, not measured here" in header) == bool(rows)
    if not rows:
        return
    lines = [line for line in header.splitlines() if re.match(r"#   \S.*\d\d\.\d", line)]
    assert lines
    known = {f"{v.mean:.1f}" for r in rows for t in (r.box, r.mask) for v in t.values()}
    for line in lines:  # the numbers of a header are those of the table
        assert set(re.findall(r"\b\d\d\.\d\b", line)) <= known, line


def test_a_file_is_read(tmp_path: Path) -> None:
    full = {**ENTRY, "mask": {"AP75": "3.5 +- .5"}, "runs": 5, "note": "n"}
    rows = read(tmp_path, full, {**ENTRY, "method": "other"})
    table = {"AP": Value(1.0)}
    assert rows[0] == Published("p", "m", "s", table, {"AP75": Value(3.5, 0.5)}, 5, "n")
    assert rows[1] == Published("p", "other", "s", table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "protocl"}, "protocol 'protocl' is unknown; did you mean protocol"),
        ({"metod": "x"}, "key 'metod' is unknown; did you mean method"),
        ({"box": {"AP60": 1}}, "metric of box 'AP60' is unknown; "),
        ({"box": {}}, "box {} has no metrics"),
        ({"box": {"AP": "1 +/- 2"}}, "box AP '1 +/- 2' is not a number"),
        ({"box": {"AP": True}}, "box AP True is not a number"),
        ({"box": {"AP": 101}}, "box AP 101 is not in 0 to 100"),
        ({"runs": 0}, "runs 0 is not a number of runs"),
        ({"source": ""}, "source '' is not a text"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read(tmp_path, ENTRY, {**ENTRY, "method": "second", **change})
    assert str(error.value).startswith(f"{tmp_path}/published.yaml: entry 2: {message}")


def test_what_is_missing_or_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="entry 1: box, source is missing"):
        read(tmp_path, {"protocol": "p", "method": "m"})
    with pytest.raises(ValueError, match="entry 1: 'x' is not a set of keys"):
        read(tmp_path, "x")
    with pytest.raises(ValueError, match="'m' under p from 's' is given twice"):
        read(tmp_path, ENTRY, ENTRY)
    (tmp_path / "bad.yaml").write_text("- [")
    with pytest.raises(ValueError, match="bad.yaml is not valid YAML"):
        read_published(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("a: 1")
    with pytest.raises(ValueError, match="bad.yaml is not a list of entries"):
        read_published(tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match="protocol 'coco_R_50_C4' is unknown; did you mean coco_R"):
        published_for("coco_R_50_C4")
