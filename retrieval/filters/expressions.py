"""Filters as typed on the command line: `price<60`, `color=gray|black`, `title~hoodie`, `!brand`."""

from __future__ import annotations

import re
from typing import Any

from retrieval.errors import QueryError
from retrieval.filters.values import short_repr

_FORMS = (
    "The forms are: price<60, price<=60, price>60, price>=60, color=gray, color!=gray, color=gray|black, "
    'title~hoodie (contains), title!~hoodie, size="032" (in quotes: text), brand (has one), !brand (has none); '
    "quote a key or a value with <, >, ~ or | in it."
)
_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_KEY = re.compile(rf"(?P<absent>!?)\s*(?P<key>{_QUOTED}|[^\"'<>=!|~][^\"<>=!|~]*)")
_OPERATOR = re.compile(r"!=|!~|<=|>=|==?|<|>|~")
_VALUE = re.compile(rf"\s*(?P<value>{_QUOTED}|[^\s\"'<>=!|](?:[^<>|]*[^\s<>|])?)\s*(?P<more>\||$)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_BARE_KEY = re.compile(r"[\w.\-]+")
_AND = re.compile(r"\s(?:and|or|&&)\s", re.IGNORECASE)
_COMPARISONS = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def parse_expression(text: str) -> dict[str, Any]:
    """Return the `where` mapping of one command-line expression, such as `price<60`, `color=gray|black` or `!brand`.

    An unquoted value is matched as every kind that it could be: `size=32` finds 32 and "32", `sale=true` finds true
    and "true", `size=032` finds text only; `<`, `<=`, `>` and `>=` compare it as a number where it looks like one. A
    quote inside quotes is doubled.

    Raises:
        QueryError: The expression has none of the forms, which the message lists.
    """
    match = _KEY.match(text.strip())
    if not match:
        raise _unreadable(text)
    key, rest = match["key"].strip(), text.strip()[match.end() :].lstrip()
    if not rest and (_BARE_KEY.fullmatch(key) or _unquote(key) != key):
        return {_unquote(key): {"$exists": not match["absent"]}}
    operator = _OPERATOR.match(rest)
    if not operator or match["absent"]:
        raise _unreadable(text)
    operand = rest[operator.end() :]
    values = _split_values(operand)
    second = None if operand.lstrip().startswith(('"', "'")) else _AND.search(operand)  # 60 and color=gray
    is_several = second is not None and any(sign in operand[second.end() :] for sign in "=<>!~")
    if is_several and (operator[0] in _COMPARISONS or not values):
        raise QueryError(
            f"The filter {short_repr(text)} has several conditions. Give each its own --where, all of which must hold; "
            f"several values of one attribute are color=gray|black, and a text with and, or in it goes in quotes."
        )
    if not values or (operator[0] in _COMPARISONS and len(values) > 1):
        raise _unreadable(text)
    return _to_where(_unquote(key), operator[0], values)


def _unreadable(text: str) -> QueryError:
    return QueryError(f"Cannot read the filter {short_repr(text)}. {_FORMS}")


def _to_where(key: str, operator: str, values: list[str]) -> dict[str, Any]:
    if operator in _COMPARISONS:
        return {key: {_COMPARISONS[operator]: _possible_values(values[0])[0]}}
    possible = [one for value in values for one in _possible_values(value)]
    if operator in ("~", "!~"):
        contains = [{key: {"$contains": one}} for one in possible]
        where = contains[0] if len(contains) == 1 else {"$or": contains}
        return {"$not": where} if operator == "!~" else where
    return {key: {"$nin" if operator == "!=" else "$in": possible}}


def _split_values(text: str) -> list[str]:
    """Return the values between bars, still quoted; none where the text is not such a list."""
    values, position = [], 0
    while match := _VALUE.match(text, position):
        values.append(match["value"])
        position = match.end()
        if not match["more"]:
            return values
    return []


def _possible_values(value: str) -> list[Any]:
    """Return the value as every kind that it could be unquoted, the likeliest first."""
    if _unquote(value) != value:
        return [_unquote(value)]
    if value.lower() in ("true", "false"):
        return [value.lower() == "true", value]
    return [float(value), value] if _NUMBER.fullmatch(value) else [value]


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
