"""YAML files of a configuration: their bases, and the types of their values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY, CfgNode

from cwrgp.config.keys import is_a, wrong_type
from cwrgp.config.packaged import packaged_configs


class ConfigFileError(ValueError):
    """A config file that cannot be read; the message names the file."""


class FileConfig(CfgNode):
    """fvcore's CfgNode with other rules for YAML files.

    ``_BASE_`` may also name a packaged config, a file never runs code, and each mistake is one line
    that names the file or the key. Both packages derive their configuration from this class.
    """

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The content of a YAML file over that of its bases.

        Args:
            filename: may have ``_BASE_``: a path relative to it, the name of a packaged config, a
                URL, or a list of these, of which later ones count.
            allow_unsafe: ignored; a file that would run code is always refused.

        Raises:
            FileNotFoundError: a base is missing; names it and the file that asks for it.
            ConfigFileError: invalid YAML, no keys, or a file that is its own base.
        """
        return cls._load(filename, ())

    @classmethod
    def _load(cls, filename: str, above: tuple[str, ...]) -> dict[str, Any]:
        """Loads a file; ``above`` are the files whose base it is."""
        with cls._open_cfg(filename) as file:
            try:
                content = yaml.safe_load(file)
            except yaml.YAMLError as error:
                raise ConfigFileError(f"{filename} is not valid YAML: {error}") from error
        if not _has_named_keys(content):
            raise ConfigFileError(
                f"{filename} is not a config: it must hold sections with keys, such as "
                "SOLVER: {EPOCHS: 100}"
            )
        bases = content.pop(BASE_KEY, [])
        merged: dict[str, Any] = {}
        chain = (*above, _identity(filename))
        for base in bases if isinstance(bases, list) else [bases]:
            path = _find_base(base, filename)
            if _identity(path) in chain:
                raise ConfigFileError(f"{filename}: {BASE_KEY} {base} is based on this file itself")
            _overlay(merged, cls._load(path, chain))
        _overlay(merged, content)
        return merged

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> Any:
        """Merges the content of a file, after a check of its types.

        Raises:
            KeyError: an unknown key.
            ValueError: a value of the wrong type; names the key, the value and the type.
        """
        return super().merge_from_other_cfg(type(self)(_as_defaults(self, cfg_other)))


def check_type(name: str, value: Any, default: Any) -> None:
    """Compares a value with the type of a key's default.

    Args:
        name: of the key.
        value: may be None, which fvcore accepts for every key.
        default: of the key; None accepts everything.

    Raises:
        ValueError: names the key, the value and the type that it must have.
    """
    if isinstance(default, CfgNode):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is a section: give its keys, not {value!r}")
    elif isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return
    elif not (value is None or default is None or is_a(value, type(default))):
        shown = dict(value) if isinstance(value, Mapping) else value  # without the name of a class
        raise wrong_type(name, shown, type(default))


def decoded(value: Any) -> Any:
    """What fvcore takes a value for: a string is the Python literal that it spells, if any."""
    return CfgNode._decode_cfg_value(value) if isinstance(value, str) else value


def _as_defaults(defaults: CfgNode, content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The content of a file with the types of the defaults; 1 is 1.0 for a floating-point number.

    Raises:
        ValueError: a value of another type. Unknown keys are left for fvcore.
    """
    result = dict(content)
    for name, value in content.items():
        if name not in defaults:
            continue
        default = defaults[name]
        if isinstance(default, str) and isinstance(value, str):
            result[name] = repr(value)  # fvcore would turn "2024" into a number
            continue
        literal = decoded(value)
        check_type(f"{prefix}{name}", literal, default)
        if isinstance(default, CfgNode):
            result[name] = _as_defaults(default, value, f"{prefix}{name}.")
        elif isinstance(default, float) and type(literal) is int:
            result[name] = float(literal)
    return result


def _find_base(base: Any, named_by: str) -> str:
    """The file or URL of a base.

    Raises:
        FileNotFoundError: there is none; names both files.
        ConfigFileError: it is no text.
    """
    if not isinstance(base, str):
        raise ConfigFileError(f"{named_by}: {BASE_KEY} {base!r} is not the name of a file")
    if "://" in base:
        return base
    path = os.path.join(os.path.dirname(named_by), os.path.expanduser(base))
    if "://" in path or os.path.isfile(path):
        return path
    if packaged := packaged_configs().get(base):
        return str(packaged)
    raise FileNotFoundError(
        f"{named_by}: {BASE_KEY} {base}: there is no file {path}, and no packaged config of this "
        "name"
    )


def _identity(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)


def _overlay(base: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Puts nested dictionaries over others, in place."""
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            _overlay(base[name], value)
        else:
            base[name] = value


def _has_named_keys(content: Any) -> bool:
    """Whether these are dictionaries in dictionaries, with texts as keys."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and (not isinstance(value, dict) or _has_named_keys(value))
        for name, value in content.items()
    )
