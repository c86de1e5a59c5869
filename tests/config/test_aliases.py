"""Renamed keys: older configurations are read under the present names."""

from __future__ import annotations

import pytest

from cwrgp.config import get_cfg
from cwrgp.config.aliases import RENAMED, upgrade

OLD = {"A": {"B": 1, "C": {"D": 2}}, "E": [3]}


def test_keys_move_and_the_rest_stays():
    new = upgrade(OLD, {"A.B": "F.G", "A.C.D": "A.C.H", "X.Y": "X.Z"})
    assert new == {"A": {"C": {"H": 2}}, "F": {"G": 1}, "E": [3]}
    assert OLD == {"A": {"B": 1, "C": {"D": 2}}, "E": [3]}
    assert upgrade(new, {"A.B": "F.G", "A.C.D": "A.C.H"}) == new


def test_a_key_under_both_names_is_an_error():
    with pytest.raises(ValueError, match="has both A.B and E, its new name"):
        upgrade(OLD, {"A.B": "E"})


def test_the_table_leads_to_keys_that_exist():
    for old, new in RENAMED.items():
        section, name = get_cfg(), new
        *parts, name = new.split(".")
        for part in parts:
            section = section[part]
        assert name in section, f"{old} -> {new}"
