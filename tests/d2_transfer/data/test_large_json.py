"""The fast reader of JSON gives what Python's own gives."""

from __future__ import annotations

import gc
import json
import math

import pytest

from d2_transfer.data.large_json import parse_json, paused_garbage_collection


@pytest.mark.parametrize(
    "text",
    [
        '[{"bbox": [0.1, 2e-7, 12345678901234567, -0.0], "name": "ü\\u00e9\\ud83d\\ude00"}]',
        '{"a": 123456789012345678901234567890}',  # above 64 bits
        '{"a": 1, "a": 2}',
        "[0.30000000000000004, 1e308, 5e-324, true, null]",
    ],
)
def test_json_is_read_as_by_python(text: str) -> None:
    expected = json.loads(text)
    for encoding in ("utf-8", "utf-16", "utf-8-sig"):
        found = parse_json(text.encode(encoding))
        assert found == expected
        assert json.dumps(found) == json.dumps(expected), "types too"


def test_what_writers_of_python_add_is_read_and_rubbish_is_not() -> None:
    found = parse_json(b'{"area": NaN, "score": Infinity}')
    assert math.isnan(found["area"]) and found["score"] == math.inf
    for rubbish in (b"", b'{"a": 1', b"[1,]", b"{'a': 1}"):
        with pytest.raises(json.JSONDecodeError):
            parse_json(rubbish)


def test_long_decimals_do_not_need_the_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("the slow reader"))
    assert parse_json(b'{"score": 0.00012345678901234567}') == {"score": 0.00012345678901234567}


def test_garbage_collection_goes_on_afterwards_as_before() -> None:
    with pytest.raises(KeyError), paused_garbage_collection():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
