"""Opens a page in Chromium, wide and narrow, light and dark, and says what is wrong with it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1280, 768, 390)  # px: a desk, a tablet, a phone

# An element may be wider than the page only in a table's own container, which scrolls.
_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  const named = e => `<${e.tagName.toLowerCase()}> ${e.textContent.trim().slice(0, 40)}`;
  const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  for (const e of document.body.querySelectorAll("*")) {
    if (e.scrollWidth > e.clientWidth + 1 && scrolls(e) && width > 1000)
      found.push(`${named(e)} scrolls on a wide page`);
    if (e.scrollWidth > e.clientWidth + 1 && scrolls(e) && !e.querySelector("table"))
      found.push(`${named(e)} scrolls, but holds no table`);
    let inside = e.parentElement;
    while (inside && !scrolls(inside)) inside = inside.parentElement;
    const box = e.getBoundingClientRect();
    if (!inside && box.width && (box.right > width + 1 || box.left < -1))
      found.push(`${named(e)} reaches from ${box.left} to ${box.right} of ${width}`);
  }
  return found;
}"""
_UNNAMED = """() => [
  ...[...document.images].filter(i => !i.alt.trim()).map(i => `an image has no alt: ${i.src}`),
  ...[...document.images].filter(i => !i.naturalWidth).map(i => `an image is broken: ${i.alt}`),
  ...[...document.querySelectorAll("svg")]
    .filter(s => s.getAttribute("role") != "img" || !(s.getAttribute("aria-label") || "").trim())
    .map(() => "a chart has no alternative text"),
]"""
_BRIGHTNESS = """() => getComputedStyle(document.body).backgroundColor
  .match(/[0-9]+/g).slice(0, 3).reduce((sum, v) => sum + Number(v), 0) / 3 / 255"""


def faults(
    path: Path, *, widths: Sequence[int] = WIDTHS, pictures: Path | None = None
) -> list[str]:
    """What is wrong with a page: errors, requests, what is too wide, pictures without words.

    Args:
        path: of the page.
        widths: of the window, in px.
        pictures: folder for a screenshot of each width and scheme.

    Returns:
        A line for each; [] for a page as it should be. The test is skipped without a Chromium.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(CHROMIUM)} is installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (only slow tests need it)

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width in widths:
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                where = f"{width} px, {scheme}"
                found += [f"{where}: {fault}" for fault in _faults_of(page, path, scheme)]
                if pictures is not None:
                    page.screenshot(path=pictures / f"{width}-{scheme}.png", full_page=True)
                page.close()
        browser.close()
    return found


def _faults_of(page: Page, path: Path, scheme: str) -> list[str]:
    found: list[str] = []

    def heard(message: Any) -> None:
        if message.type in ("error", "warning"):
            found.append(f"console: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith("data:") and request.url != path.as_uri():
            found.append(f"asks for {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("request", asked)
    page.goto(path.as_uri())
    # Pictures are loaded when they are near the window.
    page.evaluate("() => document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.evaluate("() => Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")
    found += page.evaluate(_TOO_WIDE) + page.evaluate(_UNNAMED)
    if (page.evaluate(_BRIGHTNESS) < 0.5) != (scheme == "dark"):
        found.append("the background does not follow the scheme")
    return found
