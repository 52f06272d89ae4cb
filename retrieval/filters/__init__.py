"""Filters on attributes: the `where` language, parsed to conditions that are masks over in-memory columns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from retrieval.errors import QueryError
from retrieval.filters.operators import OPERATORS, Compound, Filter, In, filter_keys
from retrieval.filters.values import escape_text, short_repr

__all__ = ["Filter", "filter_keys", "parse_filter"]

MAX_DEPTH = 24  # levels of nested mappings and lists: parsing and evaluation recurse
MAX_TERMS = 256  # conditions in one filter
MAX_VALUES = 200_000  # in all the lists of one filter
_NESTED = (Mapping, list, tuple, set, frozenset)


def parse_filter(where: Mapping[str, Any]) -> Filter:
    """Return the filter that a `where` mapping describes, with the operators of MongoDB, Chroma and Pinecone.

    A bare value means `$eq`; several keys, and several operators under a key, are and-ed. A list attribute matches
    when any of its elements does. `$ne`, `$nin` and `$not` hold exactly where their opposite does not, so also where
    the attribute is missing; None stands for missing. `$lt`, `$lte`, `$gt` and `$gte` compare numbers with numbers and
    text with text (case-folded, by code point: ISO dates sort in order) and hold for nothing else. Equality of text
    ignores case. `$contains` holds for a text, or an element of a list, that contains the given text, ignoring case;
    a number or a boolean must equal an element. Nested attributes have dotted keys.

    Raises:
        QueryError: An unknown operator, an operand of a wrong type, or a filter that is too deep or too long.
    """
    if isinstance(where, Mapping):
        _check_size(where)
    return _parse_condition(where)


def _check_size(where: Mapping[str, Any]) -> None:
    """Refuse a filter that would exhaust the stack or memory, without recursion and before anything else reads it."""
    terms = values = 0
    pending: list[tuple[Any, int]] = [(where, 1)]
    while pending:
        node, depth = pending.pop()
        is_mapping = isinstance(node, Mapping)
        terms += max(1, len(node)) if is_mapping else 0
        values += 0 if is_mapping else len(node)
        if depth > MAX_DEPTH:
            raise QueryError(f"The filter nests conditions more than {MAX_DEPTH} deep. Write it flatter.")
        if terms > MAX_TERMS:
            raise QueryError(f"The filter has more than {MAX_TERMS} conditions. Use $in for lists of values.")
        if values > MAX_VALUES:
            raise QueryError(f"The filter lists more than {MAX_VALUES:,} values. Split it into several searches.")
        children = node.values() if is_mapping else node
        pending += [(child, depth + 1) for child in children if isinstance(child, _NESTED)]


def _parse_condition(where: object) -> Filter:
    if not isinstance(where, Mapping):
        raise QueryError(f'A filter is a mapping such as {{"price": {{"$lt": 60}}}}, not {short_repr(where)}.')
    return _join_all([_parse_entry(key, operand) for key, operand in where.items()])


def _join_all(conditions: list[Filter]) -> Filter:
    return conditions[0] if len(conditions) == 1 else Compound("$and", tuple(conditions))


def _parse_entry(key: object, operand: object) -> Filter:
    if not isinstance(key, str):
        raise QueryError(f"A filter names attributes by text, not by {short_repr(key)}.")
    if key == "$not":
        return Compound(key, (_parse_condition(operand),))
    if key in ("$and", "$or"):
        if isinstance(operand, list | tuple) and operand:
            return Compound(key, tuple(_parse_condition(one) for one in operand))
        raise QueryError(f"{key} needs a list of at least one condition, not {short_repr(operand)}.")
    if key.startswith("$"):
        raise _unknown_operator(key, ("$and", "$or", "$not"), "in the place of an attribute")
    key = escape_text(key)
    return _parse_operations(key, operand) if isinstance(operand, Mapping) else In.any_of(key, [operand])


def _parse_operations(key: str, operations: object) -> Filter:
    if not isinstance(operations, Mapping) or not operations:
        raise QueryError(
            f"{short_repr(key)} needs operators such as {{'$lt': 60}}, not {short_repr(operations)}; unequal is $ne."
        )
    conditions: list[Filter] = []
    for operator, operand in operations.items():
        if not isinstance(operator, str) or not operator.startswith("$"):
            raise QueryError(
                f"{short_repr(operator)} under {short_repr(key)} is not an operator; "
                f"a nested attribute has a dotted key, 'a.b'."
            )
        if operator == "$not":
            conditions.append(Compound("$not", (_parse_operations(key, operand),)))
        elif operator in OPERATORS:
            conditions.append(OPERATORS[operator].parse(key, operand, operator=operator))
        else:
            raise _unknown_operator(operator, [*OPERATORS, "$not"], f"under {short_repr(key)}")
    return _join_all(conditions)


def _unknown_operator(operator: str, known: Iterable[str], place: str) -> QueryError:
    near = difflib.get_close_matches(operator, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known here: {' '.join(known)}."
    return QueryError(f"Unknown operator {short_repr(operator)} {place}; {hint}")
