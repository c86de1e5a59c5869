"""Checks a configuration before the build, and finds unused keys after it."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.config.defaults import KEYS
from cwrgp.config.node import Config


def get_cfg() -> Config:
    """The defaults, as a new configuration."""
    tree: dict[str, Any] = {}
    for name, key in KEYS.items():
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = key.default
    return Config(tree)


def value_of(cfg: CfgNode, name: str) -> Any:
    """The value of a key by its dotted name; this does not count as reading it."""
    node: Any = cfg
    for part in name.split("."):
        node = node[part]
    return node


def validate_cfg(cfg: CfgNode) -> None:
    """Checks single values. What takes several values is checked by what uses them.

    Raises:
        ValueError: names the key, its value and what it may be.
    """
    for name, key in KEYS.items():
        key.check(name, value_of(cfg, name))
    if not value_of(cfg, "DATA.ROOT"):
        raise ValueError("DATA.ROOT is empty; set it to the folder of the images")
    if not value_of(cfg, "OUTPUT_DIR"):
        raise ValueError("OUTPUT_DIR is empty; set it to a folder for the run")
    size, resize = value_of(cfg, "DATA.IMAGE_SIZE"), value_of(cfg, "DATA.PROBE_RESIZE")
    if resize < size:
        raise ValueError(f"DATA.PROBE_RESIZE {resize} is below DATA.IMAGE_SIZE {size}")
    for name in ("AUGMENT.JITTER", "AUGMENT.CROP_SCALE"):
        _check_augmentation(name, value_of(cfg, name))
    _check_views(cfg)
    pixel_range = value_of(cfg, "DATA.PIXEL_RANGE")
    if pixel_range and not (len(pixel_range) == 2 and pixel_range[0] < pixel_range[1]):
        raise ValueError(
            f"DATA.PIXEL_RANGE {pixel_range} is not [low, high] with low < high, such as [0, 4095]"
        )


def _check_augmentation(name: str, value: Any) -> None:
    """What the numbers of one list must be among themselves."""
    if name.endswith("JITTER") and value[3] > 0.5:
        raise ValueError(f"{name} {value}: the last value, of hue, is at most 0.5")
    if name.endswith("CROP_SCALE") and not 0 < value[0] <= value[1] <= 1:
        raise ValueError(f"{name} {value} is not 0 < low <= high <= 1")


def _check_views(cfg: CfgNode) -> None:
    views, count = value_of(cfg, "AUGMENT.PER_VIEW"), value_of(cfg, "DATA.NUM_VIEWS")
    if views and len(views) != count:
        raise ValueError(
            f"AUGMENT.PER_VIEW describes {len(views)} views, DATA.NUM_VIEWS is {count}; give one "
            "dictionary for each view, {} where nothing differs"
        )
    names = {name.removeprefix("AUGMENT."): name for name in KEYS if name.startswith("AUGMENT.")}
    names = names | {"IMAGE_SIZE": "DATA.IMAGE_SIZE"}
    for whole in ("PER_VIEW", "BACKEND", "DEVICE"):  # of all views
        del names[whole]
    for number, view in enumerate(views):
        for name, value in view.items():
            if name not in names:
                raise ValueError(
                    f"AUGMENT.PER_VIEW, view {number}: unknown key {name}; choose from "
                    f"{', '.join(sorted(names))}"
                )
            try:
                KEYS[names[name]].check(name, value)
                _check_augmentation(name, value)
            except ValueError as error:
                raise ValueError(f"AUGMENT.PER_VIEW, view {number}: {error}") from error


def unused_keys(cfg: CfgNode, *, pairs_only: tuple[str, ...] = ()) -> list[str]:
    """Keys that the user set to something else than the default and that nothing has read.

    Args:
        cfg: after everything was built from it.
        pairs_only: beginnings of keys that are for another command. They count only if they were
            given as KEY VALUE pairs, since one YAML file serves several commands.
    """
    assert isinstance(cfg, Config)
    return [
        name
        for name, where in cfg.given.items()
        if name not in cfg.read
        and value_of(cfg, name) != KEYS[name].default
        and not (where == "file" and name.startswith(pairs_only))
    ]
