"""What a key of the configuration is: default, meaning, type and range, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a value, or each number of a list, may be.

    Attributes:
        low: least value.
        high: largest value.
        open_low: whether ``low`` itself is excluded.
        open_high: whether ``high`` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def complaint(self) -> str:
        """What to say of a number outside, after its name and value."""
        if self.high == math.inf:
            if self.low == 0 and self.open_low:
                return "is not positive"
            return f"is below {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"is outside {left}{self.low:g}, {self.high:g}{right}"


def at_least(low: float) -> Range:
    """``low`` or more."""
    return Range(low=low)


POSITIVE = Range(low=0, open_low=True)
SHARE = Range(low=0, high=1)


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        default: its value unless something else is set; the value's type is the default's.
        doc: what it means.
        range: of a number, or of each number of a list.
        choices: of a text, or of each text of a list.
        length: of a list.
        items: type of the elements of a list.
        path: whether it names a file, a folder or a URL.
    """

    default: Any
    doc: str
    range: Range = Range()
    choices: tuple[str, ...] = ()
    length: int | None = None
    items: type = float
    path: bool = False

    def check(self, name: str, value: Any) -> None:
        """Compares a value with the type, range and choices.

        Raises:
            ValueError: names the key, the value and what it may be.
        """
        if isinstance(self.default, list):
            self._check_list(name, value)
            elements = [v for v in value if not isinstance(v, dict)]
        else:
            if not is_a(value, type(self.default)):
                raise wrong_type(name, value, type(self.default))
            elements = [value]
        for element in elements:
            self._check_element(name, value, element)

    def _check_list(self, name: str, value: Any) -> None:
        whole = isinstance(value, list | tuple) and all(is_a(v, self.items) for v in value)
        if not whole or self.length not in (None, len(value)):
            what = {float: "numbers", str: "texts", dict: "dictionaries"}[self.items]
            number = "" if self.length is None else f"{self.length} "
            raise ValueError(f"{name} {value} must be a list of {number}{what}")

    def _check_element(self, name: str, value: Any, element: Any) -> None:
        if isinstance(element, str):
            if self.choices and element not in self.choices:
                known = ", ".join(self.choices)
                raise ValueError(f"{name} {element!r} is unknown; choose one of {known}")
        elif not math.isfinite(element):
            raise ValueError(f"{name} {value} is not a finite number")
        elif element not in self.range:
            raise ValueError(f"{name} {value} {self.range.complaint()}")


def is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a type; an integer is also a floating-point number, a bool is not."""
    return type(value) is kind or (kind is float and type(value) is int)


def wrong_type(name: str, value: Any, kind: type) -> ValueError:
    """The error of a value that is of another type than its key."""
    return ValueError(f"{name} {value!r} must be of type {kind.__name__}")
