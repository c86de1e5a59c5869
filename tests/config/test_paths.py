"""Nothing that names a place survives in a published configuration."""

from __future__ import annotations

import pytest
import yaml

from cwrgp.config import get_cfg
from cwrgp.config.node import flatten
from cwrgp.config.paths import PATH_KEYS, without_paths


def test_keys_named_like_paths_are_marked():
    known = set(flatten(get_cfg()))
    assert known >= PATH_KEYS
    endings = ("ROOT", "DIR", "LIST", "PATH", "FILE", "WEIGHTS")
    assert {key for key in known if key.endswith(endings)} == PATH_KEYS


def test_all_else_of_the_defaults_stays():
    config = yaml.safe_load(get_cfg().dump())
    cleared = without_paths(config)
    assert list(flatten(cleared)) == list(flatten(config))
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
