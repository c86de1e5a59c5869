"""What a mistyped name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def suggest(
    name: str,
    known: Iterable[str],
    otherwise: str,
    *,
    cutoff: float = 0.5,
    show: Callable[[str], str] = str,
) -> str:
    """The part of an error message that names what is close to an unknown name.

    Args:
        name: the unknown name.
        known: names to choose from.
        otherwise: the result where none is close.
        cutoff: least similarity, as `difflib.get_close_matches` has it.
        show: turns a known name into what is shown for it.

    Returns:
        "did you mean A or B?", or ``otherwise``.
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f"did you mean {' or '.join(map(show, close))}?" if close else otherwise
