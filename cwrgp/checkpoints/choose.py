"""Which ResNet of a checkpoint is read.

The format is auto-detected by structure, never by a file's name: every ResNet in the file must be
where one known format has it. In a file of no known format, the only ResNet is read wherever it
is, and one of two if their names say which of them is a moving average of the other. Otherwise the
user names the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cwrgp.checkpoints.detectron2_names import is_detectron2_name
from cwrgp.checkpoints.find_resnets import (
    Naming,
    Place,
    find_resnets,
    open_container,
    seen_prefixes,
)
from cwrgp.checkpoints.formats import (
    BRANCHES,
    SOURCES,
    TRANSFORMERS,
    Layout,
    Source,
    source_names,
)
from cwrgp.checkpoints.other_files import CAFFE2_ADVICE, is_caffe2_name
from cwrgp.checkpoints.wrappers import peel

# Words in the place of one of two networks that say which it is: trained by gradients, or an
# average of the other.
ONLINE_WORDS = frozenset({"online", "student", "query", "q", "base"})
MOMENTUM_WORDS = frozenset(
    {"target", "teacher", "momentum", "ema", "key", "k", "avg", "average", "averaged", "slow"}
)
# Containers whose names say nothing about the network in them.
_CONTAINERS = frozenset({"model", "state", "dict", "network", "weights"})

Location = tuple[str, str]


@dataclass(frozen=True)
class Choice:
    """The ResNet to read.

    Attributes:
        place: of it.
        layout: where the file has its other networks.
        source: for the user: names of rows, or where it was found.
        branch: see `cwrgp.checkpoints.encoder.Encoder`.
        rows: the known formats that have this place.
    """

    place: Place
    layout: Layout
    source: str
    branch: str | None
    rows: tuple[Source, ...] = ()


def choose_network(
    checkpoint: Mapping[str, Any], source: str, branch: str | None, prefix: str | None
) -> Choice:
    """The ResNet to read; see `cwrgp.checkpoints.extract.extract_encoder`.

    Raises:
        ValueError: there is none, or it is not clear which.
    """
    if source not in source_names():
        raise ValueError(f"unknown source {source!r}; known: {', '.join(source_names())}")
    if branch not in (None, *BRANCHES):
        raise ValueError(f"unknown branch {branch!r}; known: {', '.join(BRANCHES)}")
    if prefix is not None and (source != "auto" or branch is not None):
        raise ValueError(f"prefix={prefix!r} says which network; omit source and branch")
    found = find_resnets(checkpoint)
    if not found:
        raise ValueError(_nothing(checkpoint))
    if prefix is not None:
        return _by_prefix(found, prefix)
    if choice := _by_format(checkpoint, found, source, branch):
        return choice
    if source not in ("auto", TRANSFORMERS):
        raise ValueError(
            f"not a file of {source}: its ResNet is under {_list(found)}; see cwrgp-convert --list"
        )
    if source == TRANSFORMERS and any(place.naming != Naming.TRANSFORMERS for place in found):
        raise ValueError(f"not a file of {source}: its ResNet is under {_list(found)}")
    different, copies = _without_copies(checkpoint, found)
    if len(different) == 1:
        return _single(different[0], copies, branch)
    if len(different) == 2 and (pair := _as_pair(checkpoint, *different)):
        return _of_pair(*pair, copies, branch)
    first, *others = different
    example = first.prefix
    if not example or any(place.prefix == example for place in others):
        example = f"{first.container}: {first.prefix}".rstrip()
    raise ValueError(
        f"two encoders or more, under {_list(found)}: no known format has them, and their names do"
        f" not say which is an average of the other; choose one with prefix={example!r}"
    )


def _nothing(checkpoint: Mapping[str, Any]) -> str:
    for container in ("", "model", "state_dict"):
        names = open_container(checkpoint, container)
        if any(map(is_caffe2_name, names)):
            return CAFFE2_ADVICE
        if any(map(is_detectron2_name, names)):
            return (
                "no ResNet found: the names are Detectron2's ('res2.0.conv1.weight'), which"
                " cwrgp-train-net takes as they are; cwrgp-convert --to torchvision writes the"
                " backbone for other uses"
            )
    return (
        f"no ResNet found: the keys begin with {', '.join(seen_prefixes(checkpoint))}; "
        "cwrgp-convert --list shows the known formats"
    )


def _list(found: list[Place]) -> str:
    return " and ".join(map(str, found))


def _location(place: Place) -> Location:
    return place.container, place.prefix


def _by_prefix(found: list[Place], prefix: str) -> Choice:
    """The only ResNet with that prefix, as it stands in the file or without wrappers."""
    named = [place for place in found if place.prefix == prefix]
    named = named or [place for place in found if peel(place.prefix) == prefix]
    named = named or [p for p in found if f"{p.container}: {p.prefix}".rstrip() == prefix.rstrip()]
    if len(named) != 1:
        where = "several ResNets are" if named else "no ResNet is"
        hint = ""
        if named:
            example = f"{named[0].container}: {named[0].prefix}".rstrip()
            hint = f"; prefix={example!r} names the dictionary, too"
        raise ValueError(
            f"{where} under prefix {prefix!r}; there is one under {_list(found)}{hint}"
        )
    (place,) = named
    others = [_location(other) for other in found if other != place]
    layout = Layout.of(_location(place), {"other": others})
    return Choice(place, layout, f"ResNet under {place}, chosen by its prefix", None)


def _single(place: Place, copies: list[Place], branch: str | None) -> Choice:
    if branch == "momentum":
        raise ValueError(f"the file has no momentum branch: its only ResNet is under {place}")
    layout = Layout.of(_location(place), copies=[_location(copy) for copy in copies])
    shown = Place(place.container, peel(place.prefix), place.naming)
    source = TRANSFORMERS if place.naming == Naming.TRANSFORMERS else f"one ResNet under {shown}"
    return Choice(place, layout, source, None)


def _of_pair(online: Place, momentum: Place, copies: list[Place], branch: str | None) -> Choice:
    branches = {"momentum": [_location(momentum)]}
    layout = Layout.of(_location(online), branches, [_location(copy) for copy in copies])
    source = f"two ResNets, online under {online} and momentum under {momentum}"
    place = momentum if branch == "momentum" else online
    return Choice(place, layout, source, branch or layout.default)


def _without_copies(
    checkpoint: Mapping[str, Any], found: list[Place]
) -> tuple[list[Place], list[Place]]:
    """The different ResNets, and those that equal the first of them, tensor by tensor."""
    different: list[Place] = found[:1]
    copies: list[Place] = []
    for place in found[1:]:
        same = place.container == found[0].container and place.naming == found[0].naming
        if same and _equal(checkpoint, found[0], place):
            copies.append(place)
        else:
            different.append(place)
    return different, copies


def _equal(checkpoint: Mapping[str, Any], a: Place, b: Place) -> bool:
    mine, other = _tensors(checkpoint, a), _tensors(checkpoint, b)
    return mine.keys() == other.keys() and all(
        mine[name].shape == other[name].shape and torch.equal(mine[name], other[name])
        for name in mine
    )


def _tensors(checkpoint: Mapping[str, Any], place: Place) -> dict[str, Tensor]:
    """All tensors under a place's prefix, by their name after it."""
    return {
        key.removeprefix(place.prefix): value
        for key, value in open_container(checkpoint, place.container).items()
        if key.startswith(place.prefix) and isinstance(value, Tensor)
    }


def _as_pair(checkpoint: Mapping[str, Any], a: Place, b: Place) -> tuple[Place, Place] | None:
    """Two places as online and momentum, if their names differ in such words only."""
    roles = [_words(place) & MOMENTUM_WORDS for place in (a, b)]
    if bool(roles[0]) == bool(roles[1]) or _rest(a) != _rest(b) or a.naming != b.naming:
        return None
    online, momentum = (b, a) if roles[0] else (a, b)
    if _words(momentum) & ONLINE_WORDS:
        return None
    # A student and a teacher of another architecture are no pair: nothing is averaged.
    shapes = [
        {place.name(place.prefix + k): v.shape for k, v in _tensors(checkpoint, place).items()}
        for place in (online, momentum)
    ]
    common = shapes[0].keys() & shapes[1].keys()
    return (online, momentum) if all(shapes[0][k] == shapes[1][k] for k in common) else None


def _split(text: str) -> list[str]:
    return [word for word in re.split(r"[._]", text) if word]


def _words(place: Place) -> set[str]:
    return {*_split(place.container), *_split(place.prefix)}


def _rest(place: Place) -> list[str]:
    """The words of a place that say neither which network it is, nor that it is wrapped."""
    container = [word for word in _split(place.container) if word not in _CONTAINERS]
    words = container + [word for word in _split(place.prefix) if word != "module"]
    return [word for word in words if word not in ONLINE_WORDS | MOMENTUM_WORDS]


def _by_format(
    checkpoint: Mapping[str, Any], found: list[Place], source: str, branch: str | None
) -> Choice | None:
    """The reading of the known formats; None if none fits.

    Raises:
        ValueError: the file lacks the branch, or several rows read different tensors.
    """
    if source == TRANSFORMERS or any(place.naming == Naming.TRANSFORMERS for place in found):
        return None
    where = {_location(place): place for place in found}
    rows = _matching_rows(checkpoint, source, set(where))
    if not rows:
        return None
    readings: dict[Location, list[tuple[Source, Layout, str]]] = {}
    for row, layout in rows:
        wanted = branch or layout.default
        for place in layout.branches[wanted]:
            if place in where:
                readings.setdefault(place, []).append((row, layout, wanted))
    if not readings:
        other = BRANCHES[branch in (None, "online")]
        raise ValueError(
            f"the file has no {branch or 'online'} branch: its ResNet is under "
            f"{_list(found)}; branch={other!r} may take it"
        )
    if len(readings) > 1:
        candidates = "; ".join(
            f"{where[place]} ({_names(entries)})" for place, entries in readings.items()
        )
        raise ValueError(f"more than one reading fits, choose one with source='NAME': {candidates}")
    place, entries = next(iter(readings.items()))
    _, layout, taken = entries[0]
    rows_read = tuple(row for row, _, _ in entries)
    return Choice(where[place], layout, _names(entries), taken, rows_read)


def _names(entries: list[tuple[Source, Layout, str]]) -> str:
    return ", ".join(dict.fromkeys(row.name for row, _, _ in entries))


def _matching_rows(
    checkpoint: Mapping[str, Any], source: str, found: set[Location]
) -> list[tuple[Source, Layout]]:
    """The layouts that explain every ResNet in the file; a requested one, its own only."""
    if source != "auto":
        row = next(row for row in SOURCES if row.name == source)
        whole = [(row, layout) for layout in row.layouts if _fits(layout, found)]
        return whole or [(row, lay) for lay in row.layouts if _fits(lay, found, partly=True)]
    rows = [(row, layout) for row in SOURCES for layout in row.layouts if _fits(layout, found)]
    return _marked(rows, checkpoint) or rows


def _fits(layout: Layout, found: set[Location], *, partly: bool = False) -> bool:
    known = layout.places()
    whole = all(found.intersection(places) for places in layout.branches.values())
    if layout.complete and not whole:
        return False
    return bool(found & known) if partly else found <= known


def _marked(
    rows: list[tuple[Source, Layout]], checkpoint: Mapping[str, Any]
) -> list[tuple[Source, Layout]]:
    """Those of the rows whose mark is in the file."""
    return [
        (row, layout)
        for row, layout in rows
        if row.mark
        and any(
            key.startswith(row.mark)
            for container, _ in layout.places()
            for key in open_container(checkpoint, container)
        )
    ]
