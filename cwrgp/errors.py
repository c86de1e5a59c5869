"""The errors that are for the user: one line, exit code 2, no traceback."""

from __future__ import annotations

import inspect


class MissingPackage(ModuleNotFoundError):
    """An optional package is not installed; the message says how to install it."""


class NothingToResume(FileNotFoundError):
    """A run is to go on, and its folder holds no checkpoint."""


USER_ERRORS = (ValueError, OSError, FloatingPointError, MissingPackage)

# The classes that a changed message keeps, beside those of this package.
_KINDS = (FloatingPointError, FileNotFoundError, OSError, ValueError)


def kind_of(error: Exception) -> type[Exception]:
    """The nearest class of a user's error that is made from a message alone.

    Args:
        error: one of `USER_ERRORS`.

    Returns:
        The error's own class if it is one of this package, a base of it if it takes more than a
        message; otherwise FloatingPointError, FileNotFoundError, OSError or ValueError.
    """
    package = __name__.partition(".")[0]
    for kind in type(error).__mro__:
        own = kind.__module__.partition(".")[0] == package
        takes_more = inspect.isfunction(inspect.getattr_static(kind, "__init__"))
        if kind in _KINDS or (own and not takes_more):
            return kind
    raise AssertionError(f"{type(error).__name__} is not a user error")
