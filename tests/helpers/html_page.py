"""Reads pages: whether their tags are balanced, and what is in them."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What tests ask of a page.

    Attributes:
        resources: addresses that it refers to.
        images: attributes of every image.
        labels: alternative texts of the charts.
        rows: texts of the cells of every row of a table.
        texts: by tag, the texts of its elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.resources: list[str] = []
        self.images: list[dict[str, str]] = []
        self.labels: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes), f"an attribute of <{tag}> is given twice"
        self.resources += [values[k] for k in ("src", "href", "data", "action") if k in values]
        if tag == "img":
            self.images.append(values)
        if tag == "svg":
            self.labels.append(values["aria-label"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        for tag in set(self.open):
            self.texts[tag][-1] += data
