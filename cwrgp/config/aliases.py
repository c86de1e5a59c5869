"""Keys that were renamed or added: old configurations and checkpoints still load."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

# Old name -> new name.
RENAMED: dict[str, str] = {
    "SOLVER.DECAY_ONE_DIMENSIONAL": "SOLVER.DECAY_BIAS_AND_NORM",
    "SOLVER.TRUST": "SOLVER.TRUST_COEFFICIENT",
    "CHECKPOINTS_KEPT": "CHECKPOINTS_TO_KEEP",
}

# Key -> old value -> new value.
RENAMED_VALUES: dict[str, dict[str, str]] = {"METHOD.NAME": {"zero_icl": "zca_cw"}}

# Key that was added -> what runs did before.
ADDED: dict[str, Any] = {
    "AUGMENT.BACKEND": "reference",
    "AUGMENT.DEVICE": "workers",
    "SOLVER.AMP.MEMORY_FORMAT": "auto",
    "DATA.MAX_UNREADABLE_SHARE": 0.0,
    "DATA.PIXEL_RANGE": [],
    "MODEL.WEIGHTS": "",
}


def current_name(key: str) -> str:
    """The name of a key today; warns if it was renamed."""
    if key not in RENAMED:
        return key
    warnings.warn(f"{key} is now called {RENAMED[key]}", FutureWarning, stacklevel=2)
    return RENAMED[key]


def current_value(key: str, value: Any) -> Any:
    """The value of a key under its name today; warns if the value was renamed."""
    new = RENAMED_VALUES.get(key, {}).get(value) if isinstance(value, str) else None
    if new is None:
        return value
    warnings.warn(f"{key} {value} is now called {new}", FutureWarning, stacklevel=2)
    return new


def upgrade(config: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """A configuration with today's names of keys and values.

    Args:
        config: nested dictionaries, of a YAML file or a checkpoint.
        warn: whether to warn of each name that was changed.

    Returns:
        A copy. Where both names are set, the new one counts.
    """
    result = copy.deepcopy(dict(config))
    for old, new in RENAMED.items():
        section, name = _find(result, old)
        if name not in section:
            continue
        value = section.pop(name)
        if warn:
            current_name(old)
        *sections, name = new.split(".")
        section = result
        for part in sections:
            section = section.setdefault(part, {})
        section.setdefault(name, value)
    for key in RENAMED_VALUES:
        section, name = _find(result, key)
        if name in section:
            with warnings.catch_warnings():
                if not warn:
                    warnings.simplefilter("ignore")
                section[name] = current_value(key, section[name])
    return result


def upgrade_saved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint with all of today's keys that change its results.

    Args:
        config: nested dictionaries.

    Returns:
        A copy with today's names, as :func:`upgrade` gives it; a key that the checkpoint does not
        have, since it is older, has the value of what its run did.
    """
    result = upgrade(config, warn=False)
    for key, value in ADDED.items():
        section, name = _find(result, key)
        if section:
            section.setdefault(name, value)
    return result


def _find(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The section of a key, an empty one where there is none, and the last part of its name."""
    *sections, name = key.split(".")
    node: Any = config
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}, name
