"""Nothing that names a place survives in a published configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from cwrgp.config import get_cfg
from cwrgp.config.defaults import PATH_KEYS
from cwrgp.config.paths import without_paths


def keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_keys_named_like_paths_are_marked():
    known = set(keys(get_cfg()))
    assert known >= PATH_KEYS
    endings = ("ROOT", "DIR", "LIST", "PATH", "FILE")
    assert {key for key in known if key.endswith(endings)} == PATH_KEYS


def test_all_else_of_the_defaults_stays():
    config = yaml.safe_load(get_cfg().dump())
    cleared = without_paths(config)
    assert list(keys(cleared)) == list(keys(config))
    assert cleared.pop("OUTPUT_DIR") == "" != config.pop("OUTPUT_DIR")
    assert cleared == config


@pytest.mark.parametrize(
    "value",
    [
        "/home/me",
        "me/data",
        "~",
        "C:\\data",
        "s3://bucket",
        "https://me@host/x?token=1",
        "gs://a/{0..9}",
    ],
)
def test_any_value_that_looks_like_a_path_is_cleared(value: str):
    config = {"A": value, "DATA": {"ROOT": "plain"}, "L": [1, value], "D": [{"x": value, "y": 2}]}
    assert without_paths(config) == {
        "A": "",
        "DATA": {"ROOT": ""},
        "L": [1, ""],
        "D": [{"x": "", "y": 2}],
    }
