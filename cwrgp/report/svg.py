"""A figure of matplotlib as an SVG element of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure


def svg_element(
    figure: Figure,
    alt: str,
    tips: Sequence[Sequence[str]],
    theme: Mapping[str, str],
    files: Sequence[Path] = (),
) -> Markup:
    """The figure as an element of a page, small, with the colours and fonts of the style sheet.

    Args:
        figure: what was drawn.
        alt: the alternative text.
        tips: for the line with the gid ``tips0``, ``tips1``, ...: the text of each marker.
        theme: colour as matplotlib writes it -> name of the page's variable for it.
        files: it is written to these as well, on white.
    """
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    patches = [figure.patch, *(axes.patch for axes in figure.axes)]
    for patch in patches:
        patch.set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=nothing)
    for patch in patches:
        patch.set_visible(True)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = nothing if file.suffix == ".svg" else None
        figure.savefig(file, dpi=160, facecolor="white", metadata=metadata)
    root = ElementTree.fromstring(buffer.getvalue())
    used = set(re.findall(r'="(?:url\()?#(\w+)', buffer.getvalue()))
    root.remove(root[0])  # matplotlib's style sheet, which would hold for the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # HTML knows these names without namespaces
        element.text, element.tail = (element.text or "").strip(), ""
        given, element.attrib = element.attrib, {}
        for name, value in given.items():
            element.set(
                name.rpartition("}")[2], _themed(value, theme) if name == "style" else value
            )
        for name in {"d", "x", "y"} & given.keys():
            rounded = re.sub(r"\d+\.\d+", lambda digits: f"{float(digits[0]):.1f}", given[name])
            element.set(name, " ".join(rounded.split()))
        if given.get("transform", "").startswith("rotate(-0"):
            del element.attrib["transform"]
    for number, texts in enumerate(tips):
        markers = root.iterfind(f".//g[@id='tips{number}']//use")
        for marker, text in zip(markers, texts, strict=True):
            ElementTree.SubElement(marker, "title").text = text
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    root.attrib = {"class": "chart", "viewBox": f"0 0 {width} {height}"}
    root.attrib |= {"role": "img", "aria-label": alt}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _themed(style: str, theme: Mapping[str, str]) -> str:
    """Colours from the page's variables, the font from the page."""
    for colour, name in theme.items():
        style = style.replace(colour, f"var(--{name})")
    return re.sub(r"font-family: [^;]*;? ?", "", style)
