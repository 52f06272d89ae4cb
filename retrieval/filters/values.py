"""Attribute values as filters compare them, and how messages show values."""

from __future__ import annotations

import math
import reprlib
import unicodedata
from typing import TypeAlias

import numpy as np

BOOLEAN, NUMBER, TEXT = range(3)
"""Kinds of values; only values of one kind are compared with each other."""

Scalar: TypeAlias = bool | float | str
"""A normalized value: numbers are float64, text is case-folded; a boolean is not a number."""


def normalize_value(value: object) -> Scalar | None:
    """Return the value as filters compare it, or None for a missing one (None and NaN).

    Integers beyond 2**53 become the nearest float64, so two that share one are equal to a filter.

    Raises:
        TypeError: The value is not a boolean, a number or text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):  # NFC: a file system or an export may write é as two characters
        return escape_text(value.lower() if value.isascii() else unicodedata.normalize("NFC", value.casefold()))
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond 1.8e308
            return math.copysign(math.inf, value > 0 or -1)
        return None if math.isnan(number) else number
    if value is None:
        return None
    raise TypeError(type(value).__name__)


def kind_of(value: Scalar) -> int:
    """Return the kind of a normalized value."""
    return BOOLEAN if isinstance(value, bool) else TEXT if isinstance(value, str) else NUMBER


def escape_text(text: str) -> str:
    """Return the text with NUL and lone surrogates, which SQLite cannot hold everywhere, as backslash escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def short_repr(value: object) -> str:
    """Return the value as an error message shows it: its repr, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return f"a huge {type(value).__name__}"
