"""Errors of a builder name the config key; those below it name the argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_KINDS = (FloatingPointError, FileNotFoundError, OSError, ValueError)


@contextmanager
def config_key(name: str) -> Iterator[None]:
    """Puts the name of a config key before the message of an error.

    Args:
        name: for instance "DATA.ROOT".

    Raises:
        ValueError, OSError, FloatingPointError: of the block, with the key's name.
    """
    try:
        yield
    except _KINDS as error:
        kind = next(kind for kind in _KINDS if isinstance(error, kind))
        raise kind(f"{name}: {error}") from error
