"""Numbers, flags, ids and texts as annotation tools write them."""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LARGE = 2**1000  # integers from here on may not be floats
_TRUE = {"1", "true", "yes", "1.0"}
_FALSE = {"", "0", "false", "no", "0.0", "none", "null"}
_BOMS = (
    # UTF-32's little-endian mark begins with UTF-16's.
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16")),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([\w.:-]+)["']""")


def as_number(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else. nan and inf are numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def as_numbers(values: Any) -> list[float] | None:
    """A list of numbers or of texts that are numbers; None for anything else."""
    if not isinstance(values, list | tuple):
        return None
    if {*map(type, values)} <= {int, float} and _are_small(values):  # nearly always
        return list(values)
    numbers = [as_number(value) for value in values]
    return None if None in numbers else numbers  # type: ignore[return-value]


def _are_small(numbers: Sequence[float]) -> bool:
    return not numbers or -_LARGE < min(numbers) <= max(numbers) < _LARGE


def as_flag(value: Any) -> bool | None:
    """True or False from a truth value, a number or a text; missing is False; None: neither."""
    if value is None:
        return False
    if isinstance(value, bool | int | float):
        return None if isinstance(value, float) and math.isnan(value) else bool(value)
    text = str(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def as_side(value: Any) -> float | None:
    """A side of an image in pixels; None where it is missing, zero or negative."""
    number = as_number(value)
    return number if number is not None and math.isfinite(number) and number > 0 else None


def as_id(value: Any) -> int | str | None:
    """An id, so that 1, 1.0 and "1" are the same; None for what is no id.

    A text with leading zeros stays a text: "01" and "1" may be two images.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        number = re.sub(r"\.0+$", "", text)
        plain = re.fullmatch(r"-?(0|[1-9]\d{0,99})", number)
        return int(number) if plain else (text or None)
    return value


def folded(text: str) -> str:
    """A text without differences of case, of Unicode's normal forms and of blanks around it."""
    text = unicodedata.normalize("NFC", text.strip())
    return unicodedata.normalize("NFC", text.casefold())


def read_text(path: Path) -> str:
    """The text of a file in the encoding that its byte order mark or XML declaration names.

    Without either it is UTF-8. Lines may end in CR LF.

    Raises:
        ValueError: the bytes are not in that encoding, or the encoding is unknown.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARED.match(content[:400])
        encoding = declared[1].decode() if declared else "utf-8"
        if encoding.lower().startswith("utf-16"):
            encoding = "utf-8"  # .NET's writers declare it; the bytes of the declaration are not
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise ValueError(f"{path}: the encoding {encoding!r} is unknown") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding} text (byte {error.start})") from error
