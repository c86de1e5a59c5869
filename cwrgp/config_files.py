"""Configs by name: those that are installed with the package, files, and values that override them.

The packaged configs are the files of the repository's ``configs`` folder. A wheel holds them in
``cwrgp/configs``; a checkout, and an editable installation of it, reads them where they are.
"""

from __future__ import annotations

import copy
import difflib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY, CfgNode

from cwrgp.config.aliases import current_name
from cwrgp.config.node import flatten

PRETRAINING = ("pretrain/*.yaml", "quick/*pretrain*.yaml")
DETECTION = ("detection/[!B]*.yaml", "quick/detection*.yaml", "quick/*rcnn*.yaml")  # no Base-*.yaml

_PACKAGE = Path(__file__).parent


def packaged_configs(patterns: Iterable[str] = ("*",)) -> dict[str, Path]:
    """The configs that are installed with this package.

    Args:
        patterns: of their names, such as `PRETRAINING` and `DETECTION`.

    Returns:
        Name -> file, sorted. A name is relative to the folder: ``pretrain/cifar10_bn_r18.yaml``.
    """
    installed = _PACKAGE / "configs"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.glob("*/*.yaml"))}
    assert files, f"{folder} holds no configs"
    return {name: f for name, f in files.items() if any(fnmatch(name, p) for p in patterns)}


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
    close = difflib.get_close_matches(Path(text).stem, by_stem, n=3, cutoff=0.6)
    known = " or ".join(by_stem[stem] for stem in close) or "--list-configs shows them"
    hint = f"did you mean {known}?" if close else known
    raise FileNotFoundError(f"{text}: no such file, and no packaged config of this name; {hint}")


def merge_file(cfg: CfgNode, file: Path) -> None:
    """Merges a YAML file into ``cfg``, in place.

    Args:
        cfg: the defaults; only keys that exist in it may be set.
        file: may have ``_BASE_``: a path relative to it, or the name of a packaged config.

    Raises:
        FileNotFoundError: no such file, or its base does not exist.
        ValueError: invalid YAML, an unknown key, or a value of the wrong type.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        base = content.get(BASE_KEY)
        packaged = packaged_configs().get(base) if isinstance(base, str) else None
        if packaged is None or (file.parent / base).is_file():
            cfg.merge_from_file(str(file), allow_unsafe=False)
        else:
            with tempfile.TemporaryDirectory() as aside:  # fvcore takes files only
                resolved = Path(aside, file.name)
                content[BASE_KEY] = str(packaged.absolute())
                resolved.write_text(yaml.safe_dump(content), encoding="utf-8")
                cfg.merge_from_file(str(resolved), allow_unsafe=False)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    except KeyError as error:
        raise ValueError(f"{file}: {_unknown_key(cfg, error)}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not a config: it must hold sections with keys, such as "
            "SOLVER: {EPOCHS: 100}"
        ) from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{file}: {error}") from error


def merge_pairs(cfg: CfgNode, pairs: Sequence[str]) -> None:
    """Merges ``["KEY", "VALUE", ...]`` of a command line into ``cfg``, in place.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a key without a value.
    """
    if flags := [word for word in pairs[::2] if word.startswith("--")]:
        raise ValueError(f"{flags[0]} must come before the KEY VALUE pairs")
    if len(pairs) % 2:
        hint = ", with a space and no = between" if any("=" in key for key in pairs[::2]) else ""
        raise ValueError(
            f"{pairs[-1]!r} has no value: options are KEY VALUE pairs{hint}, got {list(pairs)}"
        )
    keys = map(current_name, pairs[::2])
    for key, value in zip(keys, pairs[1::2], strict=True):
        _merge(cfg, key, _as_default(_get(cfg, key), value), shown=value)


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
        _merge(cfg, key, literal, shown=value)


def read_config(
    defaults: CfgNode, config: str | PathLike[str] | CfgNode, values: Mapping[str, Any]
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


def _merge(cfg: CfgNode, key: str, value: Any, *, shown: Any) -> None:
    try:
        cfg.merge_from_list([key, value])
    except (KeyError, AssertionError) as error:
        raise ValueError(_unknown_key(cfg, key)) from error
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{key} {shown!r}: {error}") from error


def _as_default(default: Any, text: str) -> str:
    """Where the default is a float, ``1`` is 1.0; where it is a string, it is "1"."""
    if isinstance(default, float) and text.lstrip("+-").isdigit():
        return f"{text}.0"
    return repr(text) if isinstance(default, str) and text.isdigit() else text


def _get(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key; None if there is no such key."""
    node: Any = cfg
    for part in key.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return node


def _unknown_key(cfg: CfgNode, error: KeyError | str) -> str:
    key = str(error).strip("\"'").removeprefix("Non-existent config key: ")
    close = difflib.get_close_matches(key, list(flatten(cfg)), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see the defaults of the config"
    return f"unknown config key {key}; {hint}"
