"""Writes pages: one HTML file each, without anything to load, from a jinja2 template.

A template extends ``base.html.j2`` and imports ``macros.html.j2`` (both in ``templates/``). Every
value is escaped unless it is ``Markup``, as the charts of :mod:`cwrgp.report.figures` are.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cwrgp.file_io.atomic import write_text
from cwrgp.report import text


def render(template: Path, **values: Any) -> str:
    """Fills in a template.

    Args:
        template: the page's own template. It may use the functions of :mod:`cwrgp.report.text` and
            :func:`picture`, :func:`key` and :func:`verdict` by name.
        values: what the template shows, by name.

    Raises:
        jinja2.UndefinedError: the template uses a name that was not given.
    """
    loaders = [jinja2.PackageLoader("cwrgp.report"), jinja2.FileSystemLoader(template.parent)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {function.__name__: function for function in _FUNCTIONS}
    return _with_unique_ids(environment.get_template(template.name).render(values))


def write_page(path: Path, html: str) -> None:
    """Writes a page under its final name only when it is complete; makes the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html)


def picture(image: Image.Image | NDArray[np.uint8], alt: str) -> Markup:
    """An ``<img>`` that carries its own data.

    Args:
        image: RGB; an array has the shape (H, W, 3).
        alt: the alternative text.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=86, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Markup(
        '<img src="data:image/jpeg;base64,{}" alt="{}" width="{}" height="{}" loading="lazy">'
    ).format(data, alt, image.width, image.height)


def key(label: str, style: int) -> Markup:
    """A label with the colour and the marker's shape of a style number of the charts."""
    return Markup('<b class="key s{}">{}</b>').format(style, label)


def verdict(word: str, good: bool) -> Markup:
    """A word in the colour of a good or a bad answer; it must say the same without the colour."""
    return Markup('<b class="{}">{}</b>').format("good" if good else "bad", word)


def _with_unique_ids(html: str) -> str:
    """Gives the ids of every chart, and the references to them, a prefix of their own."""
    numbers = itertools.count(1)

    def rename(chart: re.Match[str]) -> str:
        prefix = f"c{next(numbers)}-"
        return re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", chart[0])

    return re.sub(r"<svg .*?</svg>", rename, html, flags=re.DOTALL)


_FUNCTIONS: tuple[Callable[..., str], ...] = (
    *(text.number, text.percent, text.signed, text.plus_minus),
    *(text.plural, text.duration, picture, key, verdict),
)
