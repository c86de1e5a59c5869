"""What the tests of shards share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test; returns the folder of the indices of shards."""
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"
