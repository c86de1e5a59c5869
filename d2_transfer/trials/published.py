"""Published results of the protocols: ``published.yaml`` beside this file, with checks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cwrgp.config.packaged import packaged_configs
from cwrgp.suggestions import suggest

FILE = Path(__file__).with_name("published.yaml")
METRICS = ("AP", "AP50", "AP75")

_REQUIRED = ("protocol", "method", "box", "source")
_OPTIONAL = ("mask", "runs", "note")
_MEAN_AND_SPREAD = re.compile(r"(\d+(?:\.\d+)?) \+- (\d*\.\d+|\d+)")


@dataclass(frozen=True)
class Value:
    """A published number.

    Attributes:
        mean: in per cent.
        spread: standard deviation over runs, in points; None: not published.
    """

    mean: float
    spread: float | None = None


@dataclass(frozen=True)
class Published:
    """What is published of one method under one protocol.

    Attributes:
        protocol: name of a config of ``configs/detection``, without ``.yaml``.
        method: how the backbone was pretrained.
        source: publication or page, and its table.
        box: metric -> number, of `METRICS`; one at least.
        mask: likewise, or empty.
        runs: of which the numbers are a mean; None: not stated.
        note: what a reader must know before comparing.
    """

    protocol: str
    method: str
    source: str
    box: Mapping[str, Value]
    mask: Mapping[str, Value] = field(default_factory=dict)
    runs: int | None = None
    note: str = ""


def protocols() -> list[str]:
    """The names of the protocols: the configs of ``configs/detection`` that are runs."""
    return [file.stem for file in packaged_configs(("detection/[!B]*.yaml",)).values()]


def read_published(file: Path = FILE, known: Collection[str] | None = None) -> list[Published]:
    """Reads the table of published results, in its order.

    Args:
        file: YAML, a list of entries as in ``published.yaml``.
        known: names of protocols; None: `protocols`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: invalid YAML; an unknown protocol, key or metric; a missing key; a number that
            is none; or two entries of one protocol, method and source.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}".replace("\n", " ")) from error
    if not isinstance(content, list):
        raise ValueError(f"{file} is not a list of entries")
    names = protocols() if known is None else known
    rows = []
    for number, entry in enumerate(content, 1):
        try:
            rows.append(_parse(entry, names))
        except ValueError as error:
            raise ValueError(f"{file}: entry {number}: {error}") from error
    keys = [(row.protocol, row.method, row.source) for row in rows]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{file}: {key[1]!r} under {key[0]} from {key[2]!r} is given twice")
    return rows


def published_for(protocol: str, rows: Collection[Published] | None = None) -> list[Published]:
    """The published results of one protocol; [] if there are none.

    Raises:
        ValueError: an unknown protocol.
    """
    names = protocols()
    if protocol not in names:
        raise ValueError(_unknown("protocol", protocol, names))
    return [row for row in (read_published() if rows is None else rows) if row.protocol == protocol]


def _parse(entry: Any, known: Collection[str]) -> Published:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is not a set of keys")
    for key in entry:
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise ValueError(_unknown("key", key, (*_REQUIRED, *_OPTIONAL)))
    if missing := [key for key in _REQUIRED if key not in entry]:
        raise ValueError(f"{', '.join(missing)} is missing")
    for key in ("protocol", "method", "source", "note"):
        if not isinstance(entry.get(key, "text"), str) or not entry.get(key, "text").strip():
            raise ValueError(f"{key} {entry[key]!r} is not a text")
    if entry["protocol"] not in known:
        raise ValueError(_unknown("protocol", entry["protocol"], known))
    runs = entry.get("runs")
    if runs is not None and (type(runs) is not int or runs < 1):
        raise ValueError(f"runs {runs!r} is not a number of runs")
    tables = {key: _metrics(key, entry[key]) for key in ("box", "mask") if key in entry}
    return Published(
        entry["protocol"],
        entry["method"],
        entry["source"],
        tables["box"],
        tables.get("mask", {}),
        runs,
        entry.get("note", ""),
    )


def _metrics(key: str, given: Any) -> dict[str, Value]:
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{key} {given!r} has no metrics: {', '.join(METRICS)}")
    for name in given:
        if name not in METRICS:
            raise ValueError(_unknown(f"metric of {key}", name, METRICS))
    return {name: _value(f"{key} {name}", value) for name, value in given.items()}


def _value(what: str, given: Any) -> Value:
    match = _MEAN_AND_SPREAD.fullmatch(given) if isinstance(given, str) else None
    if match:
        value = Value(float(match[1]), float(match[2]))
    elif type(given) in (int, float):
        value = Value(float(given))
    else:
        raise ValueError(f"{what} {given!r} is not a number, or a text such as '82.2 +- 0.07'")
    if not 0 <= value.mean <= 100:
        raise ValueError(f"{what} {given!r} is not in 0 to 100")
    return value


def _unknown(what: str, name: Any, known: Collection[str]) -> str:
    hint = suggest(str(name), known, f"known: {', '.join(known)}")
    return f"{what} {name!r} is unknown; {hint}"
