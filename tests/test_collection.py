"""Every file of tests is run."""

from __future__ import annotations

from repository import REPOSITORY


def test_every_test_file_is_collected(run_tool):
    # pytest skips folders with names such as "build" and "dist" without a word.
    result = run_tool("-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider")
    assert result.returncode == 0, result.stdout + result.stderr
    collected = {line.partition("::")[0] for line in result.stdout.splitlines() if "::" in line}
    files = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "tests").rglob("test_*.py")
    }
    assert files and collected == files
