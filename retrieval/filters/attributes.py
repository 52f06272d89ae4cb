"""Attributes of items in their SQLite table: the truth that filters are evaluated against.

The owner of the database also provides `live_items(item)`, a table or view of the items that exist now. Items are small
integers from 0 upwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from retrieval.errors import ItemError
from retrieval.filters.values import Scalar, escape_text, kind_of, normalize_value, short_repr

if TYPE_CHECKING:
    import sqlite3

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
"""`attribute_changes` names each item once, at its latest change, so that a column store knows what to read again."""

Row: TypeAlias = tuple[str, int, Scalar]


def flatten_attributes(attributes: Mapping[str, Any]) -> set[Row]:
    """Return the rows (key, kind, value) by which one item's attributes are filtered.

    A list gives a row for each element, a nested mapping dotted keys (also inside lists); None, NaN and empty lists and
    mappings give none. Values are normalized; one of a type that JSON does not have is an ItemError.
    """
    rows: set[Row] = set()
    for key, value in iter_values(attributes):
        try:
            scalar = normalize_value(value)
        except TypeError:
            message = f"The attribute {short_repr(key)} is {short_repr(value)}; give text, numbers, booleans or lists."
            raise ItemError(message) from None
        if scalar is not None:
            rows.add((key, kind_of(scalar), scalar))
    return rows


def iter_values(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything in the attributes that is not a list or a mapping, in order."""
    pending: list[tuple[str, Any]] = [("", attributes)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, str | int | float):  # first, since nearly all values are: 100,000 items pass here
            yield key, value
        elif isinstance(value, Mapping):
            prefix = "" if value is attributes else f"{key}."
            pending += [(prefix + _check_key(inner), element) for inner, element in reversed([*value.items()])]
        elif isinstance(value, list | tuple):
            pending += [(key, element) for element in reversed(value)]
        else:
            yield key, value


def _check_key(key: object) -> str:
    if isinstance(key, str):
        return escape_text(key)
    raise ItemError(f"Attribute names are text, not {short_repr(key)}.")


def store_attributes(connection: sqlite3.Connection, attributes: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Replace the filterable attributes of these items, inside the caller's transaction.

    Call it for every item that is added or changed, also for one without attributes.
    """
    flat = [(item, flatten_attributes(values)) for item, values in attributes]
    delete_attributes(connection, [item for item, _ in flat])
    rows = ((item, *row) for item, item_rows in flat for row in item_rows)
    connection.executemany("INSERT INTO attributes (item, key, kind, value) VALUES (?, ?, ?, ?)", rows)


def delete_attributes(connection: sqlite3.Connection, items: Iterable[int]) -> None:
    """Delete the filterable attributes of these items, inside the caller's transaction."""
    numbers = [(int(item),) for item in items]
    connection.executemany("DELETE FROM attributes WHERE item = ?", numbers)
    connection.executemany("INSERT OR REPLACE INTO attribute_changes (item) VALUES (?)", numbers)


def list_attribute_keys(connection: sqlite3.Connection) -> list[str]:
    """Return all keys that any item has, sorted; jumps through the index from key to key."""
    rows = connection.execute(
        "WITH RECURSIVE keys(key) AS (SELECT min(key) FROM attributes UNION ALL "
        "SELECT (SELECT min(key) FROM attributes WHERE key > keys.key) FROM keys WHERE keys.key IS NOT NULL) "
        "SELECT key FROM keys WHERE key IS NOT NULL"
    )
    return [key for (key,) in rows]
