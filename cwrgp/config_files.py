"""Configs by name, packaged ones or files, and values that override them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.config.aliases import current_name
from cwrgp.config.files import ConfigFileError, FileConfig, check_type, decoded
from cwrgp.config.node import flatten
from cwrgp.config.packaged import packaged_configs
from cwrgp.suggestions import suggest

PRETRAINING = ("pretrain/*.yaml", "quick/*pretrain*.yaml")
DETECTION = ("detection/[!B]*.yaml", "quick/detection*.yaml", "quick/*rcnn*.yaml")  # no Base-*.yaml


def describe_configs(patterns: Iterable[str]) -> str:
    """A line for each packaged config: its name and the first line of its comment."""
    rows = []
    for name, file in packaged_configs(patterns).items():
        with file.open(encoding="utf-8") as lines:
            rows.append((name, next(lines).lstrip("#").strip()))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {comment}" for name, comment in rows)


def find_config(name: str | PathLike[str]) -> Path:
    """The file of a config.

    Args:
        name: a path, or the name of a packaged config, with or without ``configs/`` before it. A
            file of that path comes first.

    Raises:
        FileNotFoundError: neither exists; the message has close names.
    """
    text, packaged = str(name), packaged_configs()
    if Path(text).is_file():
        return Path(text)
    if file := packaged.get(text.removeprefix("configs/")):
        return file
    by_stem = {file.stem: key for key, file in packaged.items()}
    hint = suggest(Path(text).stem, by_stem, "", cutoff=0.6, show=by_stem.__getitem__)
    message = f"{text}: no such file, and no packaged config of this name"
    raise FileNotFoundError(f"{message}; {hint}" if hint else message)


def merge_file(cfg: FileConfig, file: Path) -> None:
    """Merges a YAML file into ``cfg``, in place.

    Args:
        cfg: the defaults; only keys that exist in it may be set.
        file: may have ``_BASE_``: a path relative to it, or the name of a packaged config.

    Raises:
        FileNotFoundError: no such file, or its base does not exist.
        ValueError: invalid YAML, an unknown key, or a value of the wrong type.
    """
    try:
        cfg.merge_from_file(str(file), allow_unsafe=False)
    except ConfigFileError:  # names the file
        raise
    except KeyError as error:
        raise ValueError(f"{file}: {_unknown_key(cfg, error)}") from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{file}: {error}") from error


def merge_pairs(cfg: CfgNode, pairs: Sequence[str]) -> None:
    """Merges ``["KEY", "VALUE", ...]`` of a command line into ``cfg``, in place.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a key without a value.
    """
    check_flags(pairs)
    if len(pairs) % 2:
        hint = ", with a space and no = between" if any("=" in key for key in pairs[::2]) else ""
        raise ValueError(
            f"{pairs[-1]!r} has no value: options are KEY VALUE pairs{hint}, got {list(pairs)}"
        )
    keys = map(current_name, pairs[::2])
    for key, value in zip(keys, pairs[1::2], strict=True):
        _merge(cfg, key, _as_default(_get(cfg, key), value))


def check_flags(pairs: Sequence[str]) -> None:
    """Raises ValueError if an option stands among ``KEY VALUE`` pairs, which would hide it."""
    if flags := [word for word in pairs[::2] if word.startswith("--")]:
        raise ValueError(f"{flags[0]} must come before the KEY VALUE pairs")


def merge_values(cfg: CfgNode, values: Mapping[str, Any], *, section: str = "") -> None:
    """Merges Python values into ``cfg``, in place.

    Args:
        cfg: the defaults; only keys that exist in it may be set.
        values: key -> value. Sections are mappings, as in YAML: ``{"SOLVER": {"EPOCHS": 3}}``.
            Dotted keys work too: ``{"SOLVER.EPOCHS": 3}``.
        section: of ``values``; "" is the whole config.

    Raises:
        ValueError: an unknown key, or a value of the wrong type.
    """
    for name, value in values.items():
        key = f"{section}.{name}" if section else name
        default = _get(cfg, key)
        if isinstance(default, CfgNode) and not isinstance(value, Mapping):
            raise ValueError(f"{key} is a section: give its keys in a dict, not {value!r}")
        if isinstance(default, CfgNode):
            merge_values(cfg, value, section=key)
            continue
        if isinstance(value, PathLike):
            value = str(value)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        # Of a string, merge_from_list takes the literal that it spells: "3" would become a number.
        literal = repr(value) if isinstance(value, str) else copy.deepcopy(value)
        _merge(cfg, key, literal)


def read_config(
    defaults: FileConfig, config: str | PathLike[str] | CfgNode, values: Mapping[str, Any]
) -> CfgNode:
    """A new config: ``config`` over ``defaults``, and ``values`` over both.

    Args:
        defaults: every key, with its default; not changed.
        config: what `find_config` takes, or a complete config, which is not changed.
        values: what `merge_values` takes.

    Raises:
        FileNotFoundError: no such config.
        ValueError: an unknown key, or a value of the wrong type.
    """
    if isinstance(config, CfgNode):
        if missing := sorted({*flatten(defaults)} - {*flatten(config)}):
            raise ValueError(f"the config has no {missing[0]}: it must be made with get_cfg()")
        cfg = config.clone()
        cfg.defrost()
    else:
        cfg = defaults.clone()
        merge_file(cfg, find_config(config))
    merge_values(cfg, values)
    return cfg


def _merge(cfg: CfgNode, key: str, value: Any) -> None:
    check_type(key, decoded(value), _get(cfg, key))
    try:
        cfg.merge_from_list([key, value])
    except (KeyError, AssertionError) as error:
        raise ValueError(_unknown_key(cfg, key)) from error


def _as_default(default: Any, text: str) -> str:
    """Where the default is a float, ``1`` is 1.0; where it is a string, any text is itself."""
    if isinstance(default, float) and text.lstrip("+-").isdigit():
        return f"{text}.0"
    return repr(text) if isinstance(default, str) else text


def _get(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key; None if there is no such key."""
    node: Any = cfg
    for part in key.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return node


def _unknown_key(cfg: CfgNode, error: KeyError | str) -> str:
    key = str(error).strip("\"'").removeprefix("Non-existent config key: ")
    return (
        f"unknown config key {key}; {suggest(key, flatten(cfg), 'see the defaults of the config')}"
    )
