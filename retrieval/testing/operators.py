"""The contract of a filter operator."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from numpy import testing

from retrieval.errors import QueryError
from retrieval.filters import filter_keys, parse_filter
from retrieval.filters.attributes import SCHEMA, delete_attributes, store_attributes
from retrieval.filters.column_store import ColumnStore


def check_operator(operator: str, operand: object, *, matching: Sequence[Any], other: Sequence[Any]) -> None:
    """Filter items by `{key: {operator: operand}}`: alone, negated, in lists, and after items have changed.

    Args:
        operator: Its name, listed in `LEAVES`: "$eq".
        operand: What it is given.
        matching: Values of an attribute that satisfy it; none is a list.
        other: Values that do not.

    Raises:
        AssertionError: A result breaks the contract; the message has both sides.
    """
    where = {"nested.key": {operator: operand}}
    testing.assert_equal(filter_keys(parse_filter(where)), frozenset(["nested.key"]))
    with testing.assert_raises(QueryError):
        parse_filter({"key": {operator: object()}})
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA + "CREATE TABLE live_items (item INTEGER PRIMARY KEY);")
    store, values = ColumnStore(), [*matching, *other, [*other, matching[0]], [*other]]
    expected = [index < len(matching) or index == len(values) - 2 for index in range(len(values))]
    for revision in (values, values[::-1]):
        with connection:
            items = [(item, {"nested": {"key": value}}) for item, value in enumerate(revision)]
            connection.executemany("INSERT OR IGNORE INTO live_items VALUES (?)", [(item,) for item, _ in items])
            store_attributes(connection, items)
        wanted = expected if revision is values else expected[::-1]
        testing.assert_array_equal(store.mask(parse_filter(where), connection), wanted)
        negated = store.mask(parse_filter({"nested.key": {"$not": {operator: operand}}}), connection)
        testing.assert_array_equal(negated, [not one for one in wanted])
    with connection:
        delete_attributes(connection, range(len(values)))
        connection.execute("DELETE FROM live_items")
    testing.assert_equal(store.mask(parse_filter(where), connection).any(), desired=False)
    connection.close()
