"""The table of known checkpoint formats: any of them -> a ResNet in torchvision's names, strict.

To add a format, add a row to `SOURCES`. Detection looks at the structure alone, never at a file's
name; exactly one row must fit. Whatever a row does not expect inside the backbone is an error, so
that a checkpoint is either read completely or refused with the tensor's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cwrgp.pretrained.resnet import Stem, check_resnet, identify_arch, is_resnet_name


@dataclass(frozen=True)
class Source:
    """One way in which a ResNet is stored in a file.

    Attributes:
        name: what a user calls it (``--source``).
        containers: keys of the file's dictionary under which the tensors may lie; ``""`` is the
            dictionary itself.
        prefix: what stands before torchvision's names, whole, including the dot.
        heads: beginnings of the names that belong to no backbone, seen from the container; they are
            dropped and listed.
        note: whose files these are.
    """

    name: str
    containers: tuple[str, ...]
    prefix: str
    heads: tuple[str, ...]
    note: str


SOURCES: tuple[Source, ...] = (
    Source("cwrgp", ("model",), "encoder.", ("projector.",), "this project's pretraining"),
    Source("cwrgp-ddp", ("state_dict",), "module.model.", ("module.head.",), "authors, ImageNet"),
    Source("cwrgp-small", ("state_dict",), "model.module.", ("head.",), "authors, small images"),
    Source("torchvision", ("", "state_dict", "model"), "", ("fc.",), "torchvision's own names"),
)


@dataclass(frozen=True)
class Encoder:
    """A ResNet without its classifier, complete and checked.

    Attributes:
        arch: torchvision's name of the architecture, ``"resnet18"`` to ``"resnet152"``.
        state_dict: its tensors under torchvision's names, without ``fc``; the counters
            ``num_batches_tracked`` are there for every BatchNorm layer or for none.
        source: name of the row of `SOURCES` that it was read as.
        stem: ``"imagenet"`` (7x7, stride 2) or ``"small"`` (3x3, stride 1).
        dropped: key in the file -> why it was left out.
    """

    arch: str
    state_dict: dict[str, Tensor]
    source: str
    stem: Stem
    dropped: dict[str, str] = field(default_factory=dict)


def extract_encoder(checkpoint: Mapping[str, Any], source: str = "auto") -> Encoder:
    """Finds the ResNet in a checkpoint and returns it under torchvision's names.

    Args:
        checkpoint: what `cwrgp.pretrained.reader.read_checkpoint` returns.
        source: name of a row of `SOURCES`, or ``"auto"`` to find the only one that fits.

    Returns:
        The encoder; its tensors are those of ``checkpoint``, not copies.

    Raises:
        ValueError: no row fits, or more than one; a tensor is missing, left over, of the wrong
            shape, or holds NaN or Inf. The message names it.
    """
    row, container = _find(checkpoint, source)
    tensors = _open(checkpoint, container)
    assert tensors is not None
    state: dict[str, Tensor] = {}
    dropped = {key: "not part of the network" for key in checkpoint if container not in ("", key)}
    for key, value in tensors.items():
        name = key.removeprefix(row.prefix)
        if key.startswith(row.prefix) and is_resnet_name(name):
            state[name] = _checked(key, value)
        elif key.startswith((*row.heads, f"{row.prefix}fc.")):
            dropped[key] = "head"
        elif not key.startswith(row.prefix):
            dropped[key] = f"not under {row.prefix!r}"
        elif not isinstance(value, Tensor):
            dropped[key] = "not a tensor"
        else:
            raise ValueError(
                f"{key!r} is left over: a ResNet has no such tensor (read as {row.name})"
            )
    _refuse_second_encoder(row, tensors)
    _drop_incomplete_counters(row, state, dropped)
    arch, stem = identify_arch(state)
    check_resnet(state, arch, stem, prefix=row.prefix)
    return Encoder(arch=arch, state_dict=state, source=row.name, stem=stem, dropped=dropped)


def source_names() -> list[str]:
    """The names that `extract_encoder` takes."""
    return ["auto", *(row.name for row in SOURCES)]


def _find(checkpoint: Mapping[str, Any], source: str) -> tuple[Source, str]:
    """The only row that fits, and the container in which it does."""
    if source not in source_names():
        raise ValueError(f"unknown source {source!r}; known: {', '.join(source_names())}")
    rows = [row for row in SOURCES if source in ("auto", row.name)]
    found = [
        (row, container)
        for row in rows
        for container in row.containers
        if _has_encoder(_open(checkpoint, container), row.prefix)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        candidates = ", ".join(f"{row.name} (in {where or 'the file'!r})" for row, where in found)
        raise ValueError(f"more than one known format fits, so none is chosen: {candidates}")
    expected = ", ".join(
        f"{row.name}: {'/'.join(repr(c) for c in row.containers)} + {row.prefix!r}" for row in rows
    )
    seen = ", ".join(_prefixes(checkpoint))
    raise ValueError(f"no ResNet found: the keys begin with {seen}; known formats are {expected}")


def _open(checkpoint: Mapping[str, Any], container: str) -> Mapping[str, Any] | None:
    content = checkpoint.get(container) if container else checkpoint
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return None
    return content


def _has_encoder(tensors: Mapping[str, Any] | None, prefix: str) -> bool:
    """Whether ``prefix`` holds a ResNet: its first convolution, or at least the first block's."""
    marks = (f"{prefix}conv1.weight", f"{prefix}layer1.0.conv1.weight")
    return tensors is not None and any(mark in tensors for mark in marks)


def _checked(key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{key!r} is a {type(value).__name__}, not a tensor")
    if key.endswith("num_batches_tracked"):
        return value
    if not value.is_floating_point():
        raise ValueError(f"{key!r} has dtype {value.dtype}, not a floating-point one")
    if not torch.isfinite(value).all():
        raise ValueError(f"{key!r} holds NaN or Inf: the training diverged, or the file is damaged")
    if key.endswith("running_var") and (value < 0).any():
        raise ValueError(f"{key!r} holds a negative variance")
    return value


def _refuse_second_encoder(row: Source, tensors: Mapping[str, Any]) -> None:
    """A second whole ResNet (a momentum copy?) that no row names must not be dropped silently."""
    marks = ("conv1.weight", "layer4.0.conv1.weight")
    for key in tensors:
        other = key.removesuffix(marks[1])
        if other == key or other == row.prefix or not other.endswith("."):
            continue
        if f"{other}{marks[0]}" in tensors and not other.startswith(row.heads):
            raise ValueError(
                f"two encoders, under {row.prefix!r} and {other!r}: which one is meant is not known"
            )


def _drop_incomplete_counters(
    row: Source, state: dict[str, Tensor], dropped: dict[str, str]
) -> None:
    counters = [name for name in state if name.endswith(".num_batches_tracked")]
    if len(counters) == sum(name.endswith(".running_mean") for name in state):
        return
    for name in counters:
        del state[name]
        dropped[f"{row.prefix}{name}"] = "counter that other BatchNorm layers lack"


def _prefixes(checkpoint: Mapping[str, Any], limit: int = 8) -> list[str]:
    """What the names begin with, container by container: at most ``limit`` examples."""
    found: dict[str, None] = {}
    for container in ("", *checkpoint):
        for key in _tensor_names(_open(checkpoint, container)):
            parts = re.match(r"(.*?)(?:(?:conv1|bn1|layer\d+|stem|res\d)\.|$)", key)
            assert parts is not None
            prefix = parts[1] if parts[1] != key or "." not in key else f"{key.rpartition('.')[0]}."
            found[f"{container}: {prefix}" if container else prefix] = None
    shown = [repr(prefix) for prefix in found][:limit]
    return shown + (["..."] if len(found) > limit else []) or ["(no tensors)"]


def _tensor_names(tensors: Mapping[str, Any] | None) -> Iterable[str]:
    return (key for key, value in (tensors or {}).items() if isinstance(value, Tensor))
