"""Reads the ResNet of any known format under torchvision's names: completely, or not at all.

The format is auto-detected by structure, never by a file's name: every ResNet in the file must
be where one known format has it. An unexpected tensor inside the backbone is an error that names
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cwrgp.checkpoints.check_tensors import check_kind, check_values, describe_untrained
from cwrgp.checkpoints.find_resnets import Place, find_resnets, open_container, seen_prefixes
from cwrgp.checkpoints.formats import BRANCHES, HEADS, SOURCES, Layout, Source, source_names
from cwrgp.checkpoints.own import read_pixels
from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from cwrgp.models.resnet import Stem, check_resnet, identify_arch, is_resnet_name


@dataclass(frozen=True)
class Encoder:
    """A ResNet without its classifier, complete and checked.

    Attributes:
        arch: torchvision's name of the architecture, a key of `resnet.ARCHITECTURES`.
        state_dict: its tensors under torchvision's names, without ``fc``; the counters
            ``num_batches_tracked`` are there for every BatchNorm layer or for none.
        source: names of the rows of `SOURCES` that describe the file; several publishers may write
            the same structure.
        branch: "online" or "momentum".
        stem: ``"imagenet"`` (7x7, stride 2) or ``"small"`` (3x3, stride 1).
        dropped: key in the file -> why it was dropped.
        warnings: remarks on the weights for the user.
        pixels: normalisation of the input in pretraining; None if it is not known.
    """

    arch: str
    state_dict: dict[str, Tensor]
    source: str
    branch: str
    stem: Stem
    dropped: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pixels: PixelStatistics | None = None


def extract_encoder(
    checkpoint: Mapping[str, Any], source: str = "auto", branch: str | None = None
) -> Encoder:
    """Finds the ResNet in a checkpoint and returns it under torchvision's names.

    Args:
        checkpoint: what `cwrgp.checkpoints.reader.read_checkpoint` returns.
        source: name of a row of `SOURCES`, or ``"auto"`` to find what fits.
        branch: one of `BRANCHES`; None takes what the format's publishers evaluate, nearly always
            the online network.

    Returns:
        The encoder; its tensors are those of ``checkpoint``, not copies.

    Raises:
        ValueError: no row fits, or several that read different tensors; a tensor is missing, left
            over, of the wrong shape, or not that of a network (NaN, Inf). The message names it.
    """
    place, entries = _choose(checkpoint, source, branch)
    _, layout, taken = entries[0]
    tensors = open_container(checkpoint, place.container)
    state: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    beside = place.prefix[: place.prefix.rstrip(".").rfind(".") + 1]  # module.model. -> module.
    for key, value in tensors.items():
        if not key.startswith(place.prefix):
            head = key.removeprefix(beside).startswith(HEADS)
            dropped[key] = "head" if head else f"not under {place.prefix!r}"
            continue
        name = place.name(key)
        if is_resnet_name(name):
            state[name] = check_kind(key, value)
        elif name.startswith(HEADS):
            dropped[key] = "head"
        elif isinstance(value, Tensor):
            raise ValueError(f"{key!r} is left over: a ResNet has no such tensor{_reason(name)}")
        else:
            dropped[key] = "not a tensor"
    _drop_incomplete_counters(place, state, dropped)
    arch, stem = identify_arch(state)
    check_resnet(state, arch, stem, place.key)
    for name, tensor in state.items():
        check_values(place.key(name), tensor)
    _explain_dropped(checkpoint, place, layout, dropped)
    return Encoder(
        arch=arch,
        state_dict=state,
        source=_names(entries),
        branch=taken,
        stem=stem,
        dropped=dropped,
        warnings=tuple(describe_untrained(state)),
        pixels=_find_pixels(checkpoint, [row for row, _, _ in entries]),
    )


def _find_pixels(checkpoint: Mapping[str, Any], rows: list[Source]) -> PixelStatistics | None:
    """The normalisation that the file states, or the one that all its possible formats have."""
    if any(row.name == "cwrgp" for row in rows):
        return read_pixels(checkpoint)
    known = {row.pixels for row in rows}
    return known.pop() if len(known) == 1 else None


def _choose(
    checkpoint: Mapping[str, Any], source: str, branch: str | None
) -> tuple[Place, list[tuple[Source, Layout, str]]]:
    """The place to read, and the formats that have it: row, layout and branch."""
    if source not in source_names():
        raise ValueError(f"unknown source {source!r}; known: {', '.join(source_names())}")
    if branch not in (None, *BRANCHES):
        raise ValueError(f"unknown branch {branch!r}; known: {', '.join(BRANCHES)}")
    found = find_resnets(checkpoint)
    if not found:
        raise ValueError(
            f"no ResNet found: the keys begin with {', '.join(seen_prefixes(checkpoint))}; "
            "cwrgp-convert --list shows the known formats"
        )
    where = {(place.container, place.prefix): place for place in found}
    rows = _matching_rows(checkpoint, source, set(where))
    if not rows:
        raise ValueError(_no_row(source, found))
    readings: dict[tuple[str, str], list[tuple[Source, Layout, str]]] = {}
    for row, layout in rows:
        wanted = branch or layout.default
        for place in layout.branches[wanted]:
            if place in where:
                readings.setdefault(place, []).append((row, layout, wanted))
    if not readings:
        other = BRANCHES[branch in (None, "online")]
        raise ValueError(
            f"the file has no {branch or 'online'} branch: its ResNet is under "
            f"{' and '.join(map(str, found))}; branch={other!r} may take it"
        )
    if len(readings) > 1:
        candidates = "; ".join(
            f"{where[place]} ({_names(entries)})" for place, entries in readings.items()
        )
        raise ValueError(f"more than one reading fits, choose one with source='NAME': {candidates}")
    place, entries = next(iter(readings.items()))
    return where[place], entries


def _names(entries: list[tuple[Source, Layout, str]]) -> str:
    return ", ".join(dict.fromkeys(row.name for row, _, _ in entries))


def _matching_rows(
    checkpoint: Mapping[str, Any], source: str, found: set[tuple[str, str]]
) -> list[tuple[Source, Layout]]:
    """The layouts that explain every ResNet in the file; a requested one, its own only."""
    if source != "auto":
        row = next(row for row in SOURCES if row.name == source)
        whole = [(row, layout) for layout in row.layouts if _fits(layout, found)]
        return whole or [(row, lay) for lay in row.layouts if _fits(lay, found, partly=True)]
    rows = [(row, layout) for row in SOURCES for layout in row.layouts if _fits(layout, found)]
    return _marked(rows, checkpoint) or rows


def _fits(layout: Layout, found: set[tuple[str, str]], *, partly: bool = False) -> bool:
    known = layout.places()
    whole = all(found.intersection(places) for places in layout.branches.values())
    if layout.complete and not whole:
        return False
    return bool(found & known) if partly else found <= known


def _no_row(source: str, found: list[Place]) -> str:
    places = " and ".join(map(str, found))
    if source != "auto":
        return f"not a file of {source}: its ResNet is under {places}; see cwrgp-convert --list"
    if len(found) > 1:
        return (
            f"two encoders or more, under {places}: no known format has them; name one with "
            "source='NAME'"
        )
    return f"no known format has a ResNet under {places}; cwrgp-convert --list shows them"


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


def _explain_dropped(
    checkpoint: Mapping[str, Any], place: Place, layout: Layout, dropped: dict[str, str]
) -> None:
    """Adds the reasons for other branches, copies (which are compared) and other containers."""
    tensors = open_container(checkpoint, place.container)
    for branch, places in layout.branches.items():
        for container, prefix in places:
            if container == place.container and prefix and prefix != place.prefix:
                under = [key for key in dropped if key.startswith(prefix)]
                dropped |= dict.fromkeys(under, f"{branch} branch")
    original = layout.branches["online"][0][1]
    for container, prefix in layout.copies:
        for key in (k for k in tensors if container == place.container and k.startswith(prefix)):
            source = original + key.removeprefix(prefix)
            if source in tensors:
                if not _equal(tensors[key], tensors[source]):
                    raise ValueError(f"{key!r} should be a copy of {source!r}, but differs")
                dropped[key] = f"copy of {original!r}"
    top = place.container.partition(".")[0]
    dropped |= {key: "not part of the network" for key in checkpoint if top and key != top}


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


def _drop_incomplete_counters(
    place: Place, state: dict[str, Tensor], dropped: dict[str, str]
) -> None:
    counters = [name for name in state if name.endswith(".num_batches_tracked")]
    if len(counters) == sum(name.endswith(".running_mean") for name in state):
        return
    for name in counters:
        del state[name]
        dropped[place.key(name)] = "counter that other BatchNorm layers lack"


def _reason(name: str) -> str:
    if name.startswith("conv1.") and name != "conv1.weight":
        return (
            " (a deep stem of three 3x3 convolutions, as in timm's resnet50d; Detectron2's stem is"
            " one 7x7 convolution, so this network cannot be transferred)"
        )
    if name.endswith(("conv1.bias", "conv2.bias", "conv3.bias")):
        return " (a convolution with bias: its BatchNorm was folded in, or it has none)"
    return ""
