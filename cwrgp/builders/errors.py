"""Errors of a builder name the config key; those below it name the argument."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from fvcore.common.config import CfgNode

from cwrgp.errors import kind_of


@contextmanager
def config_key(
    name: str, kinds: tuple[type[Exception], ...] = (ValueError, OSError, FloatingPointError)
) -> Iterator[None]:
    """Puts the name of a config key before the message of an error.

    Args:
        name: for instance "DATA.ROOT".
        kinds: of the errors that the key can cause; others pass as they are.

    Raises:
        ValueError, OSError, FloatingPointError: of the block, with the key's name. Error classes
            of this package stay what they are.
    """
    try:
        yield
    except kinds as error:
        raise kind_of(error)(f"{name}: {error}") from error


@contextmanager
def config_section(cfg: CfgNode, name: str) -> Iterator[None]:
    """Turns an error that names an argument into one that names the key, or at least the section.

    Nothing below the builders knows the configuration, so errors there name the arguments of
    functions and classes.

    Args:
        cfg: the configuration.
        name: the section that the arguments come from, such as "METHOD.CWRGP".

    Raises:
        ValueError: "METHOD.CWRGP.EPS 2 is ..." for "eps 2 is ..."; "METHOD.CWRGP: " and the message
            where it does not start with the name of a key.
    """
    try:
        yield
    except ValueError as error:
        section = functools.reduce(getattr, name.split("."), cfg)
        argument, _, rest = str(error).partition(" ")
        if argument.upper() in section:
            raise ValueError(f"{name}.{argument.upper()} {rest}") from error
        raise ValueError(f"{name}: {error}") from error
