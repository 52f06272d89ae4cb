"""Attributes of items in their SQLite table, and filters compiled to SQL over it: the truth about filters.

Whoever owns the database also gives it `live_items(item)`, a table or view of the items that exist now. Items are small
integers from 0 upwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from retrieval.errors import ItemError, QueryError
from retrieval.filters import Compare, Every, Exists, Filter, Not, OneOf, Scalar, Some, comparable, shown, storable

if TYPE_CHECKING:
    import sqlite3

BOOLEAN, NUMBER, TEXT = range(3)
"""The kinds of values; only values of one kind are compared with each other."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS attributes (
    item INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value NOT NULL
);
CREATE INDEX IF NOT EXISTS attributes_by_value ON attributes (key, kind, value, item);
CREATE INDEX IF NOT EXISTS attributes_by_item ON attributes (item);
CREATE TABLE IF NOT EXISTS attribute_changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL UNIQUE
);
"""
"""`attribute_changes` names each item once, at its latest change, so that mirrors know what to read again."""

Row: TypeAlias = tuple[str, int, Scalar]

_SQL_VARIABLES = 30_000  # SQLite's default limit is 32,766
_SQL_INTEGERS = 2**63


def flatten(attributes: Mapping[str, Any]) -> set[Row]:
    """Rows (key, kind, value) by which one item's attributes are filtered.

    Lists give a row for each element, nested mappings dotted keys (also inside lists); None, NaN and what is empty
    give none. Values are those of `filters.comparable`.

    Raises:
        ItemError: A value or a key is not of the kinds that JSON has.
    """
    rows: set[Row] = set()
    pending: list[tuple[str, Any]] = [(_key(key), value) for key, value in attributes.items()]
    while pending:
        key, value = pending.pop()
        if isinstance(value, str | int | float):  # first, being nearly all: 100,000 items pass here
            rows |= _row(key, value)
        elif isinstance(value, Mapping):
            pending += [(f"{key}.{_key(inner)}", element) for inner, element in value.items()]
        elif isinstance(value, list | tuple):
            pending += [(key, element) for element in value]
        else:
            rows |= _row(key, value)
    return rows


def _key(key: object) -> str:
    if isinstance(key, str):
        return storable(key)
    raise ItemError(f"Attributes have names that are text, not {shown(key)}.")


def _row(key: str, value: object) -> set[Row]:
    try:
        scalar = comparable(value)
    except TypeError:
        message = f"The attribute {shown(key)} is {shown(value)}; give text, numbers, booleans or lists of them."
        raise ItemError(message) from None
    return set() if scalar is None else {(key, _kind(scalar), scalar)}


def _kind(value: Scalar) -> int:
    return BOOLEAN if isinstance(value, bool) else TEXT if isinstance(value, str) else NUMBER


def store_attributes(connection: sqlite3.Connection, attributes: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Replace what filters know of these items, inside the caller's transaction.

    Every item that is added or changed comes through here, also one without attributes.
    """
    flat = [(item, flatten(values)) for item, values in attributes]
    forget_attributes(connection, [item for item, _ in flat])
    rows = ((item, *row) for item, found in flat for row in found)
    connection.executemany("INSERT INTO attributes (item, key, kind, value) VALUES (?, ?, ?, ?)", rows)


def forget_attributes(connection: sqlite3.Connection, items: Iterable[int]) -> None:
    """Remove what filters know of these items, inside the caller's transaction."""
    numbers = [(int(item),) for item in items]
    connection.executemany("DELETE FROM attributes WHERE item = ?", numbers)
    connection.executemany("INSERT OR REPLACE INTO attribute_changes (item) VALUES (?)", numbers)


def attribute_keys(connection: sqlite3.Connection) -> list[str]:
    """All keys that any item has, sorted; jumps through the index from key to key."""
    rows = connection.execute(
        "WITH RECURSIVE keys(key) AS (SELECT min(key) FROM attributes UNION ALL "
        "SELECT (SELECT min(key) FROM attributes WHERE key > keys.key) FROM keys WHERE keys.key IS NOT NULL) "
        "SELECT key FROM keys WHERE key IS NOT NULL"
    )
    return [key for (key,) in rows]


def filter_sql(condition: Filter) -> tuple[str, list[Any]]:
    """A SELECT of the live items for which the condition holds, and its parameters; no user text is in the SQL.

    Raises:
        QueryError: More numbers that SQLite cannot be sent as JSON (tiny or huge fractions) than it has variables.
    """
    parameters: list[Any] = []
    sql = f"SELECT item FROM live_items WHERE {_clause(condition, parameters)}"  # noqa: S608 - made of constants only
    if len(parameters) > _SQL_VARIABLES:
        raise QueryError(f"The filter lists over {_SQL_VARIABLES:,} tiny or huge numbers. Ask in several searches.")
    return sql, parameters


def _clause(condition: Filter, parameters: list[Any]) -> str:
    """An SQL condition on `item`, never NULL; appends its parameters."""
    if isinstance(condition, Not):
        return f"NOT {_clause(condition.part, parameters)}"
    if isinstance(condition, Every):
        return f"({' AND '.join(_clause(part, parameters) for part in condition.parts) or '1'})"
    if isinstance(condition, Some):
        return f"({' OR '.join(_clause(part, parameters) for part in condition.parts) or '0'})"
    if isinstance(condition, Exists):
        return _having(condition.key, "", parameters)
    if isinstance(condition, OneOf):
        return _one_of_clause(condition, parameters)
    return _compare_clause(condition, parameters)


_SIGNS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


def _having(key: str, test: str, parameters: list[Any]) -> str:
    parameters.append(key)
    return f"item IN (SELECT item FROM attributes WHERE key = ?{test})"  # noqa: S608 - the test is made of constants


def _compare_clause(condition: Compare, parameters: list[Any]) -> str:
    test = f" AND kind = {_kind(condition.value)} AND value {_SIGNS[condition.operator]} ?"
    clause = _having(condition.key, test, parameters)
    parameters.append(condition.value)
    return clause


def _one_of_clause(condition: OneOf, parameters: list[Any]) -> str:
    clauses = []
    for kind, values in ((BOOLEAN, condition.booleans), (NUMBER, condition.numbers), (TEXT, condition.texts)):
        if values:
            listed, operands = _listed(kind, list(values))
            clauses.append(_having(condition.key, f" AND kind = {kind} AND value {listed}", parameters))
            parameters += operands
    return f"({' OR '.join(clauses) or '0'})"


def _listed(kind: int, values: list[Any]) -> tuple[str, list[Any]]:
    if len(values) == 1:
        return "= ?", values
    if kind == NUMBER:
        return _listed_numbers(values)
    return "IN (SELECT json_each.value FROM json_each(?))", [json.dumps(values)]


def _listed_numbers(values: list[float]) -> tuple[str, list[Any]]:
    """Numbers as JSON pairs of integers, whose quotient is exact; SQLite does not promise to read decimals exactly."""
    ratios = {value: _ratio(value) for value in values}
    others = [value for value, ratio in ratios.items() if ratio is None]
    quotients = (
        "SELECT CAST(json_extract(json_each.value, '$[0]') AS REAL) / json_extract(json_each.value, '$[1]') "
        "FROM json_each(?)"
    )
    rest = f" UNION ALL VALUES {', '.join(['(?)'] * len(others))}" if others else ""
    return f"IN ({quotients}{rest})", [json.dumps([ratio for ratio in ratios.values() if ratio]), *others]


def _ratio(value: float) -> tuple[int, int] | None:
    """The number as a quotient of integers that SQLite has, or None where it has none (infinite, huge, tiny)."""
    if not math.isfinite(value):
        return None
    numerator, denominator = value.as_integer_ratio()
    return (numerator, denominator) if max(abs(numerator), denominator) < _SQL_INTEGERS else None
