"""Names that wrappers of a network add to the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# torch.compile, FSDP and activation checkpointing add these wherever a module is wrapped.
_ANYWHERE = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# DataParallel, DistributedDataParallel, and the attribute in which many programs hold the network.
# Known formats have them, so they are peeled only to compare or to show a prefix.
_LEADING = re.compile(r"(?:module\.|model\.)+")
_MAX_DEPTH = 6


def without_wrappers(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same content without `torch.compile`'s, FSDP's and other wrappers' parts of names.

    Args:
        checkpoint: nested dictionaries; not changed.

    Raises:
        ValueError: two names would become the same.
    """
    return _plain(checkpoint, 0, {})


def peel(prefix: str) -> str:
    """A prefix without ``module.`` and ``model.`` at its beginning; itself if nothing is left."""
    return _LEADING.sub("", prefix, count=1) if not _LEADING.fullmatch(prefix) else prefix


def _plain(content: Any, depth: int, done: dict[int, Any]) -> Any:
    """Each object once: shared ones could nest without end."""
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return content
    if id(content) in done:
        return done[id(content)]
    result: dict[Any, Any] = {}
    done[id(content)] = result
    origin: dict[Any, Any] = {}
    for key, value in content.items():
        name = _ANYWHERE.sub("", key) if isinstance(key, str) else key
        if name in origin:
            raise ValueError(
                f"{origin[name]!r} and {key!r} are the same tensor {name!r} without the names of"
                " wrappers; save one of them"
            )
        origin[name] = key
        result[name] = _plain(value, depth + 1, done)
    return result
