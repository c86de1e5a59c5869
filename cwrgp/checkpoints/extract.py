"""Reads the ResNet of a checkpoint under torchvision's names: completely, or not at all.

`cwrgp.checkpoints.choose` says which one. An unexpected tensor inside the backbone is an error that
names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cwrgp.checkpoints.check_tensors import check_kind, check_values, describe_untrained
from cwrgp.checkpoints.choose import choose_network
from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.find_resnets import Naming, Place, open_container
from cwrgp.checkpoints.formats import HEADS, Layout, Source
from cwrgp.checkpoints.own import read_pixels
from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from cwrgp.checkpoints.wrappers import without_wrappers
from cwrgp.models.resnet import check_resnet, identify_arch, is_resnet_name


def extract_encoder(
    checkpoint: Mapping[str, Any],
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
) -> Encoder:
    """Finds the ResNet in a checkpoint and returns it under torchvision's names.

    Args:
        checkpoint: what `cwrgp.checkpoints.reader.read_checkpoint` returns.
        source: name of a row of `SOURCES`, or ``"auto"`` to find what fits.
        branch: one of `BRANCHES`; None takes what the format's publishers evaluate, nearly always
            the online network.
        prefix: what the names of the network begin with, such as "encoder.encoder.", where a file
            of no known format holds several; instead of source and branch.

    Returns:
        The encoder; its tensors are those of ``checkpoint``, not copies.

    Raises:
        ValueError: there is no ResNet, or several without a known relation; several rows fit and
            read different tensors; a tensor is missing, left over, of the wrong shape, or not that
            of a network (NaN, Inf). The message names it.
    """
    checkpoint = without_wrappers(checkpoint)
    choice = choose_network(checkpoint, source, branch, prefix)
    place = choice.place
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
    _explain_dropped(checkpoint, place, choice.layout, dropped)
    return Encoder(
        arch=arch,
        state_dict=state,
        source=choice.source,
        branch=choice.branch,
        stem=stem,
        dropped=dropped,
        warnings=tuple(describe_untrained(state)),
        pixels=_find_pixels(checkpoint, choice.rows),
        from_transformers=place.naming == Naming.TRANSFORMERS,
    )


def _find_pixels(checkpoint: Mapping[str, Any], rows: Sequence[Source]) -> PixelStatistics | None:
    """The normalisation that the file states, or the one that all its possible formats have."""
    if any(row.name == "cwrgp" for row in rows):
        return read_pixels(checkpoint)
    known = {row.pixels for row in rows}
    return known.pop() if len(known) == 1 else None


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
