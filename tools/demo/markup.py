"""Pieces of the report's page as HTML strings."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image


def section(title: str, lead: str, body: str) -> str:
    """A titled part of the page; ``lead`` and ``body`` are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n<p>{lead}</p>\n{body}\n</section>\n"


def figure(title: str, body: str, caption: str = "", style: str = "") -> str:
    """A card with a title; ``body`` and ``caption`` are HTML, ``style`` a CSS class."""
    note = f"<figcaption>{caption}</figcaption>" if caption else ""
    attribute = f' class="{style}"' if style else ""
    return f"<figure{attribute}><h3>{escape(title)}</h3>{body}{note}</figure>\n"


def picture(image: Image.Image, alt: str) -> str:
    """An ``<img>`` that carries its own data."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=86, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt)}" width="{image.width}" '
        f'height="{image.height}" loading="lazy">'
    )
