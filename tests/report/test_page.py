"""Pages: what is given is shown and escaped, nothing is loaded, ids are unique."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import jinja2
import numpy as np
import pytest
from html_page import Page
from PIL import Image
from repository import REPOSITORY

from cwrgp.report.figures import Series, line_chart
from cwrgp.report.page import picture, render, write_page

EVIL = "<script>alert('\"&')</script>"
TEMPLATE = """
{% extends "base.html.j2" %}
{% from "macros.html.j2" import section, figure, table, facts %}
{% block title %}{{ evil }}{% endblock %}
{% block header %}<h1>{{ evil }}</h1>{% endblock %}
{% block main %}
{% call section(evil) %}
{{ figure(evil, chart, evil) }}{{ figure("again", chart, wide=true) }}
{% set last = [("row", verdict(evil, true))] %}
{{ table(evil, ("", evil), [(key(evil, 0), [(evil, evil)]), ("", last)]) }}
{{ facts({evil: evil, "images": 3000}) }}{{ picture(image, evil) }}
<div class="code"><pre>{{ evil }}</pre><button type="button">Copy</button></div>
{% endcall %}
{% endblock %}
"""


@pytest.fixture
def html(tmp_path):
    chart = line_chart(
        [Series("a", [0, 1], [1, 2], 0, markers=True)], x_label="x", y_label="y", alt=EVIL
    )
    template = tmp_path / "page.html.j2"
    template.write_text(TEMPLATE)
    image = np.zeros((4, 6, 3), np.uint8)
    return render(template, evil=EVIL, chart=chart, image=image)


def test_every_value_is_escaped_and_shown(html):
    page = Page(html)
    assert html.count("<script>") == 1, "that of the copy button"
    assert page.texts["h1"] == [EVIL] and page.texts["h2"] == [EVIL]
    assert page.texts["h3"] == [EVIL, "again"] and page.texts["figcaption"] == [EVIL]
    assert page.texts["title"][0] == EVIL and page.texts["caption"] == [EVIL]
    assert page.rows == [["", EVIL], [EVIL], [EVIL, EVIL], ["row", EVIL]]
    assert page.texts["dt"] == [EVIL, "images"]
    assert page.texts["dd"] == [EVIL, "3,000"]
    assert page.texts["pre"] == [EVIL]
    assert page.labels == [EVIL, EVIL] and page.images[0]["alt"] == EVIL


def test_a_page_loads_nothing(html):
    page = Page(html)
    assert all(resource.startswith(("data:image/jpeg;base64,", "#")) for resource in page.resources)
    assert not re.search(r"https?:|[\"'(]//|@import|url\((?!#)", html)


def test_ids_are_unique_and_references_are_met(html):
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) >= 4, "the same chart is there twice"
    assert set(re.findall(r'(?: href="#|url\(#)([^)"]+)', html)) == set(ids)


def test_both_schemes_have_their_colours(html):
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    names = set(re.findall(r"--(\w+):", light))
    assert set(re.findall(r"var\(--(\w+)\)", html)) - {"color", "width"} <= names
    assert set(re.findall(r"--(\w+):", dark)) >= names - {"serif", "sans", "mono", "c6"}
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_a_name_that_was_not_given_is_an_error(tmp_path):
    (tmp_path / "page.html.j2").write_text("{{ nothing }}")
    with pytest.raises(jinja2.UndefinedError, match="'nothing' is undefined"):
        render(tmp_path / "page.html.j2")


@pytest.mark.parametrize("kind", [Image.fromarray, np.asarray])
def test_a_picture_carries_its_data(kind):
    image = np.full((4, 6, 3), (200, 10, 10), np.uint8)
    (given,) = Page(picture(kind(image), "a & b")).images
    assert (given["width"], given["height"], given["alt"]) == ("6", "4", "a & b")
    with Image.open(io.BytesIO(base64.b64decode(given["src"].split(",")[1]))) as read:
        assert np.abs(np.asarray(read).astype(int) - image).max() < 8


def test_the_file_replaces_an_older_one_whole(tmp_path):
    path = tmp_path / "new" / "page.html"
    write_page(path, "first")
    write_page(path, "zweite Fassung: ä")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert path.read_text(encoding="utf-8") == "zweite Fassung: ä"


def test_the_templates_are_installed(tmp_path):
    """With setuptools itself: what a wheel is made of."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    folder = REPOSITORY / "cwrgp" / "report" / "templates"
    names = {path.name for path in folder.iterdir()}
    assert names == {"base.html.j2", "macros.html.j2", "report.css"}
    assert {p.name for p in (tmp_path / "cwrgp" / "report" / "templates").iterdir()} == names


def test_only_charts_need_matplotlib():
    code = (
        "import sys, cwrgp.report.page; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == "False False\n", done.stderr
