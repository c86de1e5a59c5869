"""The class of an error whose message is changed or handed to another process."""

from __future__ import annotations

import json

import pytest

from cwrgp.data.base import StorageError
from cwrgp.engine.finite import NonFinite
from cwrgp.errors import USER_ERRORS, MissingPackage, kind_of


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), ValueError),
        (json.JSONDecodeError("x", "y", 0), ValueError),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), ValueError),
        (FileNotFoundError(2, "x"), FileNotFoundError),
        (PermissionError(13, "x"), OSError),
        (FloatingPointError("x"), FloatingPointError),
        (MissingPackage("x", name="y"), MissingPackage),
        (StorageError("x"), StorageError),
        (NonFinite("x", step=3), FloatingPointError),  # takes more than a message
    ],
)
def test_an_error_keeps_a_class_that_takes_a_message(
    error: Exception, kind: type[Exception]
) -> None:
    assert kind_of(error) is kind
    assert isinstance(kind("text"), USER_ERRORS) and str(kind("text")) == "text"


def test_a_defect_has_no_kind() -> None:
    with pytest.raises(AssertionError, match="KeyError is not a user error"):
        kind_of(KeyError("x"))
