"""Filters as typed on the command line: `price<60`, `color=gray|black`, `title~hoodie`, `!brand`."""

from __future__ import annotations

import re
from typing import Any

from retrieval.errors import QueryError
from retrieval.filters.operators import OPERATORS, Comparison, In
from retrieval.filters.values import short_repr

# Operators by their spelling, with the forms that messages list. A spelling with ! in front negates one that has no
# opposite, as $in has $nin. An operator gets a number both as one and as text; bare keys have no character of these.
_SPELLINGS = {
    "<": ("$lt", "price<60"),
    "<=": ("$lte", "price<=60"),
    ">": ("$gt", "price>60"),
    ">=": ("$gte", "price>=60"),
    "=": ("$in", "color=gray, color=gray|black"),
    "==": ("$in", "color==gray"),
    "!=": ("$nin", "color!=gray"),
    "~": ("$contains", "title~hoodie (contains)"),
    "!~": ("$contains", "title!~hoodie"),
}
_FORMS = (
    f"The forms are: {', '.join(form for _, form in _SPELLINGS.values())}, "
    'size="032" (in quotes: text), brand (has one), !brand (has none); quote a key or a value with <, >, ~ or | in it.'
)
_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_SIGNS = re.escape("".join(_SPELLINGS))
_KEY = re.compile(rf"(?P<absent>!?)\s*(?P<key>{_QUOTED}|[^\"'|{_SIGNS}][^\"|{_SIGNS}]*)")
_OPERATOR = re.compile("|".join(map(re.escape, sorted(_SPELLINGS, key=len, reverse=True))))
_VALUE = re.compile(rf"\s*(?P<value>{_QUOTED}|[^\s\"'<>=!|](?:[^<>|]*[^\s<>|])?)\s*(?P<more>\||$)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_BARE_KEY = re.compile(r"[\w.\-]+")
_AND = re.compile(r"\s(?:and|or|&&)\s", re.IGNORECASE)


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
    leaf, operand = OPERATORS[_SPELLINGS[operator[0]][0]], rest[operator.end() :]
    values = _split_values(operand)
    second = None if operand.lstrip().startswith(('"', "'")) else _AND.search(operand)  # 60 and color=gray
    is_several = second is not None and re.search(f"[{_SIGNS}]", operand[second.end() :]) is not None
    if is_several and (leaf is Comparison or not values):
        raise QueryError(
            f"The filter {short_repr(text)} has several conditions. Give each its own --where, all of which must hold; "
            'several values of one attribute are color=gray|black, and a text with "and" or "or" in it is quoted.'
        )
    if not values or (leaf is Comparison and len(values) > 1):
        raise _unreadable(text)
    return _to_where(_unquote(key), operator[0], values)


def _unreadable(text: str) -> QueryError:
    return QueryError(f"Cannot read the filter {short_repr(text)}. {_FORMS}")


def _to_where(key: str, operator: str, values: list[str]) -> dict[str, Any]:
    name, possible = _SPELLINGS[operator][0], [one for value in values for one in _possible_values(value)]
    if OPERATORS[name] in (Comparison, In):
        return {key: {name: possible if OPERATORS[name] is In else possible[0]}}
    conditions = [{key: {name: one}} for one in possible]
    where = conditions[0] if len(conditions) == 1 else {"$or": conditions}
    return {"$not": where} if operator.startswith("!") else where


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
