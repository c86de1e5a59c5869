"""What tests of several packages share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from images import write_images
from repository import REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the tests cache does not stay, unless the environment says where."""
    os.environ.setdefault("CWRGP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def loggers_reach_caplog_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run makes its logger stop propagating; the next test shall not see that.

    pytest listens to the root logger and, from the start of a test, to those that do not
    propagate, so a logger that propagates again in the middle of a test is heard twice.
    """
    for name in ("cwrgp", "d2_transfer"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 images of 40 px in two classes."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "cat", 64, seed=0)
    write_images(root / "dog", 64, seed=1)
    return root


@pytest.fixture
def run_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of the repository as a user would and captures what it prints."""

    def run(*command: object, check: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=check,
            timeout=540,
        )

    return run
