"""Keys that were renamed: old configurations and checkpoints still load."""

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


def current_name(key: str) -> str:
    """The name of a key today; warns if it was renamed."""
    if key not in RENAMED:
        return key
    warnings.warn(f"{key} is now called {RENAMED[key]}", FutureWarning, stacklevel=2)
    return RENAMED[key]


def upgrade(config: Mapping[str, Any], *, warn: bool = True) -> dict[str, Any]:
    """A configuration with today's names.

    Args:
        config: nested dictionaries, of a YAML file or a checkpoint.
        warn: whether to warn of each key that was renamed.

    Returns:
        A copy. Where both names are set, the new one counts.
    """
    result = copy.deepcopy(dict(config))
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        node: Any = result
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name not in node:
            continue
        value = node.pop(name)
        if warn:
            current_name(old)
        *sections, name = new.split(".")
        node = result
        for section in sections:
            node = node.setdefault(section, {})
        node.setdefault(name, value)
    return result
