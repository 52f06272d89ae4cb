"""Filters as they are typed on the command line: `price<60`, `color=gray|black`, `!brand`."""

from __future__ import annotations

import re
from typing import Any

from retrieval.errors import QueryError
from retrieval.filters import shown

_FORMS = (
    "The forms are: price<60, price<=60, price>60, price>=60, color=gray, color!=gray, color=gray|black, "
    'size="032" (in quotes: text), brand (has one), !brand (has none); quote a key or a value with <, > or | in it.'
)
_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_KEY = re.compile(rf"(?P<absent>!?)\s*(?P<key>{_QUOTED}|[^\"'<>=!|][^\"<>=!|]*)")
_OPERATOR = re.compile(r"!=|<=|>=|==?|<|>")
_VALUE = re.compile(rf"\s*(?P<value>{_QUOTED}|[^\s\"'<>=!|](?:[^<>|]*[^\s<>|])?)\s*(?P<more>\||$)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_BARE_KEY = re.compile(r"[\w.\-]+")
_AND = re.compile(r"\s(?:and|or|&&)\s", re.IGNORECASE)
_COMPARISONS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def parse_expression(text: str) -> dict[str, Any]:
    """A `where` mapping from one expression of the command line, such as `price<60`, `color=gray|black` or `!brand`.

    What is not quoted is matched as every kind that it could be: `size=32` finds 32 and "32", `sale=true` finds true
    and "true", `size=032` finds text only; `<` and its kin compare as numbers what looks like one. A quote inside
    quotes is doubled.

    Raises:
        QueryError: The expression has none of the forms, which the message lists.
    """
    found = _KEY.match(text.strip())
    if not found:
        raise _unreadable(text)
    key, rest = found["key"].strip(), text.strip()[found.end() :].lstrip()
    if not rest and (_BARE_KEY.fullmatch(key) or _unquoted(key) != key):
        return {_unquoted(key): {"$exists": not found["absent"]}}
    operator = _OPERATOR.match(rest)
    if not operator or found["absent"]:
        raise _unreadable(text)
    values = _values(rest[operator.end() :])
    if _holds_another(rest[operator.end() :]) and (operator[0] in _COMPARISONS or not values):
        raise QueryError(
            f"The filter {shown(text)} holds several: give each its own --where, all of which must hold; "
            f"several values of one attribute are color=gray|black, and a text with and, or in it goes in quotes."
        )
    if not values or (operator[0] in _COMPARISONS and len(values) > 1):
        raise _unreadable(text)
    return {_unquoted(key): _operation(operator[0], values)}


def _holds_another(value: str) -> bool:
    """Whether a value that is not in quotes goes on with another expression: 60 and color=gray."""
    found = None if value.lstrip().startswith(('"', "'")) else _AND.search(value)
    return found is not None and any(sign in value[found.end() :] for sign in "=<>!")


def _unreadable(text: str) -> QueryError:
    return QueryError(f"Cannot read the filter {shown(text)}. {_FORMS}")


def _operation(operator: str, values: list[str]) -> dict[str, Any]:
    if operator in _COMPARISONS:
        return {_COMPARISONS[operator]: _readings(values[0])[0]}
    return {"$nin" if operator == "!=" else "$in": [reading for value in values for reading in _readings(value)]}


def _values(text: str) -> list[str]:
    """The values between bars, still quoted; none where the text is no such list."""
    values, position = [], 0
    while found := _VALUE.match(text, position):
        values.append(found["value"])
        position = found.end()
        if not found["more"]:
            return values
    return []


def _readings(value: str) -> list[Any]:
    """Every kind that an unquoted value could be, the likeliest first."""
    if _unquoted(value) != value:
        return [_unquoted(value)]
    if value.lower() in ("true", "false"):
        return [value.lower() == "true", value]
    return [float(value), value] if _NUMBER.fullmatch(value) else [value]


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
