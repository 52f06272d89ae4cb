"""The `where` language: what a filter on attributes says, read from a mapping and checked."""

from __future__ import annotations

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from retrieval.errors import QueryError

MAX_DEPTH = 24
"""Mappings and lists inside each other; keeps our recursion and SQLite's parser stack far from their ends."""

MAX_TERMS = 256
"""Conditions in one filter; SQLite takes expressions 1,000 deep, and a chain of ORs counts one each."""

MAX_VALUES = 200_000
"""Values in all the lists of one filter."""

Scalar: TypeAlias = bool | float | str
"""A value as it is compared: numbers as float64, text case-folded; a boolean is no number."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Holds where any value under the key equals one of these. Apart by kind, since Python takes True for 1."""

    key: str
    booleans: frozenset[bool] = frozenset()
    numbers: frozenset[float] = frozenset()
    texts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds where any value of the same kind under the key is `$lt`, `$lte`, `$gt` or `$gte` the given one."""

    key: str
    operator: str
    value: float | str


@dataclass(frozen=True, slots=True)
class Exists:
    """Holds where the key has any value."""

    key: str


@dataclass(frozen=True, slots=True)
class Not:
    """Holds exactly where its part does not."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Every:
    """Holds where all parts hold; without parts it holds everywhere."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """Holds where at least one part holds."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = OneOf | Compare | Exists | Not | Every | Some


_NESTED = (Mapping, list, tuple, set, frozenset)


def parse_filter(where: Mapping[str, Any]) -> Filter:
    """Filter that a `where` mapping describes, with the operators that MongoDB, Chroma and Pinecone users know.

    A bare value means `$eq`; several keys, and several operators under a key, are and-ed. A list attribute matches
    when any of its elements does. `$ne`, `$nin` and `$not` hold exactly where their opposite does not, so also where
    the attribute is missing; None stands for missing. `$lt` and its kin compare numbers with numbers and text with
    text (case-folded, by code point: ISO dates come out in order) and hold for nothing else. Text is equal when it is
    equal but for its case. Nested attributes are reached by dotted keys.

    Raises:
        QueryError: An unknown operator, an operand of a wrong type, or a filter too deep or too long.
    """
    if isinstance(where, Mapping):
        _check_size(where)
    return _condition(where)


def filter_keys(condition: Filter) -> frozenset[str]:
    """Keys of the attributes that the filter looks at."""
    return frozenset(part.key for part in _walk(condition) if isinstance(part, OneOf | Compare | Exists))


def _walk(condition: Filter) -> Iterator[Filter]:
    yield condition
    if isinstance(condition, Every | Some):
        for part in condition.parts:
            yield from _walk(part)
    elif isinstance(condition, Not):
        yield from _walk(condition.part)


def comparable(value: object) -> Scalar | None:
    """The value as filters compare it, or None for a missing one (None and NaN).

    Integers beyond 2**53 become the nearest float64, so two that share one are equal to a filter.

    Raises:
        TypeError: The value is not a boolean, a number or text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return _folded(value)
    if value is None:
        return None
    raise TypeError(type(value).__name__)


def storable(text: str) -> str:
    """Text with what a database cannot hold everywhere (NUL, lone surrogates) written as backslash escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond 1.8e308
        return math.copysign(math.inf, value > 0 or -1)
    return None if math.isnan(number) else number


def _folded(text: str) -> str:
    # NFC: a file system or an export may write é as two characters.
    return storable(text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold()))


def _check_size(where: Mapping[str, Any]) -> None:
    """Refuse what would exhaust a stack or SQLite, without recursion and before anything else looks at it."""
    terms = values = 0
    pending: list[tuple[Any, int]] = [(where, 1)]
    while pending:
        node, depth = pending.pop()
        children = node.values() if isinstance(node, Mapping) else node
        terms += max(1, len(node)) if isinstance(node, Mapping) else 0
        values += 0 if isinstance(node, Mapping) else len(node)
        _check_counts(depth, terms, values)
        pending += [(child, depth + 1) for child in children if isinstance(child, _NESTED)]


def _check_counts(depth: int, terms: int, values: int) -> None:
    if depth > MAX_DEPTH:
        raise QueryError(f"The filter has conditions more than {MAX_DEPTH} deep inside each other. Write it flatter.")
    if terms > MAX_TERMS:
        raise QueryError(f"The filter has more than {MAX_TERMS} conditions. Use $in for lists of values.")
    if values > MAX_VALUES:
        raise QueryError(f"The filter lists more than {MAX_VALUES:,} values. Ask in several searches.")


def _condition(where: object) -> Filter:
    if not isinstance(where, Mapping):
        raise QueryError(f'A filter is a mapping such as {{"price": {{"$lt": 60}}}}, not {shown(where)}.')
    return _every([_entry(key, operand) for key, operand in where.items()])


def _every(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else Every(tuple(parts))


def _entry(key: object, operand: object) -> Filter:
    if not isinstance(key, str):
        raise QueryError(f"A filter names attributes by text, not by {shown(key)}.")
    if key.startswith("$"):
        if key not in _CONNECTIVES:
            raise _unknown(key, _CONNECTIVES, "in the place of an attribute")
        return _CONNECTIVES[key](operand)
    if isinstance(operand, Mapping):
        return _operations(storable(key), operand)
    return _one_of(storable(key), [operand])


def _conditions(name: str, operand: object) -> tuple[Filter, ...]:
    if isinstance(operand, list | tuple) and operand:
        return tuple(_condition(part) for part in operand)
    raise QueryError(f"{name} needs a list of at least one condition, not {shown(operand)}.")


def _operations(key: str, operations: object) -> Filter:
    if not isinstance(operations, Mapping) or not operations:
        raise QueryError(
            f"{shown(key)} needs operators such as {{'$lt': 60}}, not {shown(operations)}; unequal is $ne."
        )
    return _every([_operation(key, name, operand) for name, operand in operations.items()])


def _operation(key: str, name: object, operand: object) -> Filter:
    if not isinstance(name, str) or not name.startswith("$"):
        raise QueryError(
            f"{shown(name)} under {shown(key)} is no operator; a nested attribute has a dotted key, 'a.b'."
        )
    if name not in _OPERATORS:
        raise _unknown(name, _OPERATORS, f"under {shown(key)}")
    return _OPERATORS[name](key, operand)


def _one_of(key: str, operands: Iterable[object]) -> Filter:
    values = [_operand(key, operand) for operand in operands]
    listed = OneOf(
        key,
        booleans=frozenset(value for value in values if isinstance(value, bool)),
        numbers=frozenset(value for value in values if isinstance(value, float)),
        texts=frozenset(value for value in values if isinstance(value, str)),
    )
    return Some((listed, Not(Exists(key)))) if None in values else listed


def _operand(key: str, operand: object) -> Scalar | None:
    try:
        value = comparable(operand)
    except TypeError:
        hint = "any of a list is $in" if isinstance(operand, Collection) else "dates are ISO text"
        raise QueryError(f"{shown(key)} can be text, a number or a boolean, not {shown(operand)}; {hint}.") from None
    if value is None and operand is not None:
        raise QueryError(f"{shown(key)} is compared with NaN, which equals nothing; missing is {{'$exists': false}}.")
    return value


def _compare(name: str, key: str, operand: object) -> Filter:
    value = _operand(key, operand)
    if value is None or isinstance(value, bool):
        raise QueryError(f"{name} under {shown(key)} compares with a number or text, not {shown(operand)}.")
    return Compare(key, name, value)


def _in(name: str, key: str, operand: object) -> Filter:
    if isinstance(operand, list | tuple | set | frozenset):
        return _one_of(key, operand)
    raise QueryError(f"{name} under {shown(key)} needs a list of values, not {shown(operand)}.")


def _exists(key: str, operand: object) -> Filter:
    if isinstance(operand, bool):
        return Exists(key) if operand else Not(Exists(key))
    raise QueryError(f"$exists under {shown(key)} is true or false, not {shown(operand)}.")


_CONNECTIVES: dict[str, Callable[[object], Filter]] = {
    "$and": lambda operand: Every(_conditions("$and", operand)),
    "$or": lambda operand: Some(_conditions("$or", operand)),
    "$not": lambda operand: Not(_condition(operand)),
}

_OPERATORS: dict[str, Callable[[str, object], Filter]] = {
    "$eq": lambda key, operand: _one_of(key, [operand]),
    "$ne": lambda key, operand: Not(_one_of(key, [operand])),
    "$in": partial(_in, "$in"),
    "$nin": lambda key, operand: Not(_in("$nin", key, operand)),
    "$lt": partial(_compare, "$lt"),
    "$lte": partial(_compare, "$lte"),
    "$gt": partial(_compare, "$gt"),
    "$gte": partial(_compare, "$gte"),
    "$exists": _exists,
    "$not": lambda key, operand: Not(_operations(key, operand)),
}


def _unknown(name: str, known: Iterable[str], place: str) -> QueryError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known here: {' '.join(known)}."
    return QueryError(f"Unknown operator {shown(name)} {place}; {hint}")


def shown(value: object) -> str:
    """A value in an error message, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return f"a huge {type(value).__name__}"
