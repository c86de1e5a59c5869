"""A server, and where its file goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT
from file_server import FileServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves CONTENT as /f.pth."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as served:
        served.files["/f.pth"] = CONTENT
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "f.pth"
