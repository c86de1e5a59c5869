"""Numbers, flags, ids and texts as annotation tools write them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest

from d2_transfer.data.values import as_flag, as_id, as_number, as_numbers, as_side, read_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("1", 1), (1.0, 1), ("1.0", 1), (" 7 ", 7), ("-3", -3), (0, 0)]
    + [("01", "01"), ("a1", "a1"), ("1e3", "1e3"), ("猫", "猫")]
    + [(1.5, None), ("", None), (None, None), (True, None), ([1], None), (float("nan"), None)],
)
def test_ids(value: Any, expected: Any) -> None:
    found = as_id(value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, False), (1, True), (2, True), (None, False), ("", False), ("0", False), ("1", True)]
    + [("False", False), ("true", True), (" No ", False), (1.0, True), (False, False)]
    + [("perhaps", None), (float("nan"), None)],
)
def test_flags(value: Any, expected: bool | None) -> None:
    assert as_flag(value) is expected


@pytest.mark.parametrize(
    ("value", "number", "side"),
    [(3, 3, 3), ("4.5", 4.5, 4.5), (0, 0, None), (-1, -1, None), ("inf", float("inf"), None)]
    + [(True, None, None), ("x", None, None), (None, None, None), (10**400, None, None)],
)
def test_numbers_and_sides(value: Any, number: float | None, side: float | None) -> None:
    assert as_number(value) == number and as_side(value) == side


def test_lists_of_numbers() -> None:
    assert as_numbers([1, "2", 3.5]) == [1, 2, 3.5] == as_numbers((1, 2, 3.5))
    assert as_numbers([1, None]) is None and as_numbers([1, [2]]) is None
    assert as_numbers("12") is None and as_numbers([True]) is None and as_numbers([]) == []


@pytest.mark.parametrize(
    "content",
    [
        "für".encode(),
        codecs.BOM_UTF8 + "für".encode(),
        "für".encode("utf-16"),
        codecs.BOM_UTF16_BE + "für".encode("utf-16-be"),
        "für".encode("utf-32"),
    ],
)
def test_texts_are_decoded_by_their_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") == "für"
