"""The commit of the code that gave a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cwrgp.provenance import source_commit


def test_the_commit_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> str:
        name = ("-c", "user.name=n", "-c", "user.email=e")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *name, *command],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "code.py").write_text("x = 1\n")
    assert source_commit(package) is None  # no repository
    git("init", "-q")
    assert source_commit(package) is None  # not tracked, as an installed package in a checkout
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")[:12]
    (package / "notes.txt").touch()  # not tracked
    assert source_commit(package) == commit
    (package / "code.py").write_text("x = 2\n")
    assert source_commit(package) == f"{commit} + changes"
    monkeypatch.setenv("PATH", "")
    assert source_commit(package) is None
