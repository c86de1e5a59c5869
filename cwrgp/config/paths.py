"""Removes paths and URLs from a configuration that is published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cwrgp.config.defaults import KEYS

PATH_KEYS = frozenset(name for name, key in KEYS.items() if key.path)

# A separator, a home folder, a Windows drive, or a URL. No other value of a configuration has one.
_PATH = re.compile(r"[/\\]|^~|^[A-Za-z]:")


def without_paths(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a configuration in which everything that names a place is ``""``.

    Args:
        config: nested dictionaries; not changed.
        prefix: of the keys, with its dot.

    Returns:
        The same keys. Empty are the values of `PATH_KEYS` and all other texts, also in lists, that
        look like a path or a URL.
    """
    result: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            result[name] = without_paths(value, f"{key}.")
        else:
            result[name] = "" if key in PATH_KEYS else _cleared(value)
    return result


def _cleared(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _cleared(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleared(item) for item in value]
    return "" if isinstance(value, str) and _PATH.search(value) else value
