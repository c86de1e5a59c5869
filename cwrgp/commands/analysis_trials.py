"""AP of the trials that an analysis of checkpoints is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _absolute(file: str) -> str:
    """Of a path: a name of one place; an address stays as it is."""
    return file if "://" in file else str(Path(file).expanduser().resolve())


def read_trials(path: Path, named: Mapping[str, str]) -> dict[str, Any]:
    """Box AP of the weights that trials have an arm of: by its name, or by its file.

    Args:
        path: results.json of trials, or its folder.
        named: name -> file of the weights.

    Returns:
        ``ap``: name -> mean, std and number of trials, arm and files; and what they are of.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is of something else, or has none of the weights.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text())
        arms, protocol = content["arms"], content["protocol"]
        deviations = list(content["deviations"])
        by_file = {_absolute(file): arm for arm, of in arms.items() for file in of["weights"]}
        found = {}
        for name, file in named.items():
            arm = name if name in arms else by_file.get(_absolute(file))
            summary = arms[arm]["metrics"].get("bbox/AP") if arm else None
            if summary and summary["mean"] is not None:
                found[name] = {key: summary[key] for key in ("mean", "std", "n")}
                found[name] |= {"arm": arm, "weights": arms[arm]["weights"]}
    except FileNotFoundError:
        raise FileNotFoundError(f"trials {path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"trials {path} is not a results.json of cwrgp-trials") from None
    if not found:
        raise ValueError(
            f"trials {path} has no box AP of {', '.join(named)}; its arms are {', '.join(arms)}."
            " Use the same names: --weights NAME=FILE"
        )
    return {
        "file": str(path),
        "protocol": protocol,
        "deviations": deviations,
        "metric": "box AP",
        "ap": found,
    }
