"""The configuration as an object: fvcore's, with renamed keys, and a record of what was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from fvcore.common.config import BASE_KEY, CfgNode

from cwrgp.config.aliases import current_name, current_value, upgrade
from cwrgp.config.files import FileConfig


class Config(FileConfig):
    """fvcore's CfgNode with two more additions to those of `FileConfig`.

    Renamed keys are accepted under their old names, with a warning. And it notes which keys were
    set by the user and which were read as attributes (``cfg.DATA.ROOT``), so that a command can
    name the keys that had no effect; see :func:`cwrgp.config.checks.unused_keys`.

    Attributes:
        given: keys set in the YAML file itself (not in its ``_BASE_``), by KEY VALUE pairs or as
            attributes, with where: "file" or "pairs".
        read: keys that were read as attributes.
    """

    given: dict[str, str]
    read: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attach("", {}, set())

    def _attach(self, prefix: str, given: dict[str, str], read: set[str]) -> None:
        """Shares the two records among all sections."""
        self.__dict__.update(_prefix=prefix, given=given, read=read)
        for name, value in self.items():
            if isinstance(value, Config):
                value._attach(f"{prefix}{name}.", given, read)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if not isinstance(value, CfgNode) and "read" in self.__dict__:
            self.read.add(self._prefix + name)
        return value

    def __setattr__(self, name: str, val: Any) -> None:
        super().__setattr__(name, val)
        if not isinstance(val, CfgNode) and name in self:
            self.given[self._prefix + name] = "pairs"

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merges a YAML file, its ``_BASE_`` included; old names of keys are accepted."""
        merged = self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe)
        self.merge_from_other_cfg(upgrade(merged))
        with self._open_cfg(cfg_filename) as file:
            own = yaml.safe_load(file)
        own.pop(BASE_KEY, None)
        self.given.update(dict.fromkeys(flatten(upgrade(own, warn=False)), "file"))

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """Merges KEY VALUE pairs; old names of keys are accepted."""
        if len(cfg_list) % 2:
            raise ValueError(f"{cfg_list[-1]!r} has no value: give KEY, VALUE, KEY, VALUE ...")
        keys = [current_name(key) for key in cfg_list[::2]]
        values = [current_value(k, v) for k, v in zip(keys, cfg_list[1::2], strict=True)]
        super().merge_from_list([word for pair in zip(keys, values, strict=True) for word in pair])
        self.given.update(dict.fromkeys(keys, "pairs"))


def flatten(config: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of all keys of nested dictionaries."""
    return (name for name, _ in leaves(config))


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names and the values of all keys of nested dictionaries."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
