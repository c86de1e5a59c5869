"""Configuration keys that were renamed, so that older checkpoints and files can still be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Old dotted key -> new dotted key.
RENAMED: dict[str, str] = {}


def upgrade(config: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns a configuration with its old keys under their new names.

    Args:
        config: nested dictionaries; not changed.
        renamed: old dotted key -> new dotted key; None takes `RENAMED`.

    Raises:
        ValueError: the configuration has both the old and the new key.
    """
    result = _copy(config)
    for old, new in (RENAMED if renamed is None else renamed).items():
        section, name = _section(result, old)
        if section is None or name not in section:
            continue
        value = section.pop(name)
        section, name = _section(result, new, create=True)
        assert section is not None
        if name in section:
            raise ValueError(f"the configuration has both {old} and {new}, its new name")
        section[name] = value
    return result


def _copy(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in config.items()}


def _section(
    config: dict[str, Any], key: str, *, create: bool = False
) -> tuple[dict[str, Any] | None, str]:
    """The dictionary that holds a dotted key, if there is one, and the last part of the key."""
    *parts, name = key.split(".")
    section: Any = config
    for part in parts:
        section = section.setdefault(part, {}) if create else section.get(part)
        if not isinstance(section, dict):
            return None, name
    return section, name
