"""The documents name files, and tests, that exist."""

from __future__ import annotations

import re

import pytest
from repository import REPOSITORY

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "MODEL_ZOO.md", "Makefile", "docs/*.md"]
_PATH = re.compile(r"(?<![\w./-])((?:cwrgp|d2_transfer|tools|tests|configs|docs)/[\w./-]*\w/?)")


def files() -> list[str]:
    found = [path for pattern in DOCUMENTS for path in REPOSITORY.glob(pattern)]
    assert len(found) > 8
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


@pytest.mark.parametrize("name", files())
def test_the_files_that_a_document_names_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    named = {path for path in _PATH.findall(text) if not path.endswith("NAME.yaml")}
    assert [path for path in sorted(named) if not (REPOSITORY / path).exists()] == []


def test_the_tests_that_a_document_names_exist() -> None:
    text = (REPOSITORY / "docs" / "own_data.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 50 and len(named) == text.count("::")
    lacking = {
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(), re.MULTILINE)
    }
    assert lacking == set()
