"""What the commands of the analysis write and say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from html_page import Page

from cwrgp.commands.analyze import main


def check_page(folder: Path) -> Page:
    html = (folder / "report.html").read_text()
    page = Page(html)
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.resources)
    assert not re.search(r"@import|url\((?!#)", html)
    assert page.labels and all(len(label) > 20 for label in page.labels)
    assert all(image["alt"] for image in page.images)
    captions = page.texts["figcaption"]
    assert len(captions) == len(page.texts["figure"]) and all(c.endswith(".") for c in captions)
    return page


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error
