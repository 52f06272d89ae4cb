"""Filters as masks over columns: equal to SQL and to a plain reading of the language, through every change."""

import sqlite3
import threading
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_filters import filter_sql

from retrieval.filters import column_store, parse_filter
from retrieval.filters.attributes import SCHEMA, delete_attributes, store_attributes
from retrieval.filters.column_store import ColumnStore


def new_database(path=":memory:"):
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE live_items (item INTEGER PRIMARY KEY);" + SCHEMA)
    return connection


def put(connection, items):
    """Add or change items, given as {number: attributes}; None deletes."""
    with connection:
        gone = [number for number, attributes in items.items() if attributes is None]
        kept = {number: attributes for number, attributes in items.items() if attributes is not None}
        connection.executemany("DELETE FROM live_items WHERE item = ?", [(number,) for number in gone])
        connection.executemany("INSERT OR IGNORE INTO live_items VALUES (?)", [(number,) for number in kept])
        delete_attributes(connection, gone)
        store_attributes(connection, kept.items())


def matches_by_sql(connection, where):
    return {item for (item,) in connection.execute(*filter_sql(parse_filter(where)))}


def matches_by_columns(store, connection, where):
    return set(np.flatnonzero(store.mask(parse_filter(where), connection)).tolist())


# The language once more, read straight from mappings: slow and plain.


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif value is not None and value == value:  # noqa: PLR0124 - NaN is missing
        yield ".".join(path), value


def plain(value):
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value.casefold())
    return value if isinstance(value, bool) else float(value)


COMPARISONS = {
    "$eq": lambda one, other: one == other,
    "$contains": lambda one, other: other in one,
    "$lt": lambda one, other: one < other,
    "$lte": lambda one, other: one <= other,
    "$gt": lambda one, other: one > other,
    "$gte": lambda one, other: one >= other,
}


NEGATIONS = {"$ne": "$eq", "$nin": "$in", "$not": "$every"}


def passes(values, operator, operand):
    if operator in NEGATIONS:
        return not passes(values, NEGATIONS[operator], operand)
    match operator:
        case "$exists":
            return bool(values) == operand
        case "$every":
            return all(passes(values, *entry) for entry in operand.items())
        case "$in":
            return any(passes(values, "$eq", one) for one in operand)
        case "$eq" if operand is None:
            return not values
    if operator == "$contains" and not isinstance(operand, str):
        operator = "$eq"
    compare = COMPARISONS[operator]
    return any(type(plain(value)) is type(plain(operand)) and compare(plain(value), plain(operand)) for value in values)


def holds(where, attributes):
    return all(entry_holds(key, operand, attributes) for key, operand in where.items())


def entry_holds(key, operand, attributes):
    match key:
        case "$and":
            return all(holds(part, attributes) for part in operand)
        case "$or":
            return any(holds(part, attributes) for part in operand)
        case "$not":
            return not holds(operand, attributes)
    values = [value for found, value in leaves(attributes) if found == key]
    operations = operand if isinstance(operand, dict) else {"$eq": operand}
    return all(passes(values, *entry) for entry in operations.items())


# Few keys and few values, so that they meet.

NUMBERS = st.sampled_from(
    [0, -0.0, 1, 1.0, 2.5, -3, 1e300, 5e-324, float("inf"), 2**53, 2**53 + 1, 0.1, 0.30000000000000004]
)
TEXTS = st.sampled_from(
    ["", "a", "A", "ab", "ß", "SS", "é", "e\u0301", "É", "灰", "1", "true", "a\0", "\ud7ff", "\U0001f600", "'"]
)
SCALARS = st.booleans() | NUMBERS | TEXTS
KEYS = st.sampled_from(["a", "b", "a.b", "Ä", "'\"?"])
VALUES = st.recursive(
    SCALARS | st.none() | st.just(float("nan")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["b", "c"]), inner, max_size=2),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=4)

OPERAND = SCALARS | st.none()
OPERATIONS = st.recursive(
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), OPERAND, min_size=1)
    | st.dictionaries(st.sampled_from(["$lt", "$lte", "$gt", "$gte"]), NUMBERS | TEXTS, min_size=1)
    | st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(OPERAND, max_size=4), min_size=1)
    | st.dictionaries(st.just("$contains"), SCALARS, min_size=1)
    | st.dictionaries(st.just("$exists"), st.booleans(), min_size=1),
    lambda inner: st.dictionaries(st.just("$not"), inner, min_size=1),
    max_leaves=2,
)
WHERE = st.recursive(
    st.dictionaries(KEYS, OPERAND | OPERATIONS, max_size=2),
    lambda inner: (
        st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1)
        | st.dictionaries(st.just("$not"), inner, min_size=1)
    ),
    max_leaves=6,
)
CHANGES = st.dictionaries(st.integers(0, 12), ATTRIBUTES | st.none(), max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=4), st.lists(WHERE, min_size=1, max_size=3))
def test_columns_sql_and_a_plain_reading_agree_through_all_changes(changes, filters):
    connection, store, items = new_database(), ColumnStore(), {}
    for change in changes:
        put(connection, change)
        items |= change
        for where in filters:
            expected = {number for number, own in items.items() if own is not None and holds(where, own)}
            assert matches_by_sql(connection, where) == expected
            assert matches_by_columns(store, connection, where) == expected
            assert len(store.mask(parse_filter(where), connection)) == max(items, default=-1) + 1
    connection.close()


def shop(count):
    colors = ["red", "blue", ["red", "green"], None]
    return {number: {"price": number % 97, "color": colors[number % 4], "sku": f"S{number}"} for number in range(count)}


def test_a_change_reads_the_changed_items_and_no_whole_column():
    connection, store = new_database(), ColumnStore()
    put(connection, shop(3000))
    filters = [{"price": {"$lt": 10}}, {"color": "green"}, {"sku": "s7"}]
    for where in filters:
        matches_by_columns(store, connection, where)
    put(connection, {5: {"price": 3, "color": ["green", "brand new"], "sku": "S7"}, 3000: {"sku": "s7"}, 7: None})
    statements = []
    connection.set_trace_callback(statements.append)
    found = [matches_by_columns(store, connection, where) for where in filters]
    assert found == [matches_by_sql(connection, where) for where in filters]
    assert found[2] == {5, 3000}
    connection.set_trace_callback(None)
    reads = [statement for statement in statements if "FROM attributes " in statement and "INDEXED BY" in statement]
    assert len(reads) == 1
    assert not [statement for statement in statements if "group_concat" in statement]


def test_new_texts_keep_the_vocabulary_sorted():
    connection, store = new_database(), ColumnStore()
    put(connection, {number: {"a": text} for number, text in enumerate(["d", "f", ["b", "h"]])})
    assert matches_by_columns(store, connection, {"a": {"$lt": "e"}}) == {0, 2}
    put(connection, {3: {"a": ["a", "e", "z"]}, 4: {"a": "g"}})
    for operator in ("$lt", "$lte", "$gt", "$gte", "$eq"):
        for text in "abcdefghijz":
            where = {"a": {operator: text}}
            assert matches_by_columns(store, connection, where) == matches_by_sql(connection, where), where


def test_lists_that_grow_and_shrink_leave_no_stale_values():
    """Each value is looked for after each change: also those that items lost, and in items that have none."""
    connection, store, random = new_database(), ColumnStore(), np.random.default_rng(0)
    for _ in range(60):
        letters = random.choice(list("abcdefghijklmnop"), size=random.integers(0, 4)).tolist()
        put(connection, {int(random.integers(8)): {"a": [*letters, *map(ord, letters)]}})
        for letter in "abcdefghijklmnop":
            for where in ({"a": letter}, {"a": ord(letter)}, {"a": {"$lte": letter}}, {"a": {"$exists": True}}):
                assert matches_by_columns(store, connection, where) == matches_by_sql(connection, where), where


def test_many_changes_at_once_read_whole_columns():
    connection, store = new_database(), ColumnStore()
    put(connection, shop(2000))
    matches_by_columns(store, connection, {"price": 5})
    put(connection, {number: {"price": 5} for number in range(500, 1800)})
    assert (
        len(matches_by_columns(store, connection, {"price": 5}))
        == len(matches_by_sql(connection, {"price": 5}))
        >= 1300
    )


def test_least_recently_used_columns_are_evicted(monkeypatch):
    monkeypatch.setattr(column_store, "MAX_COLUMNS", 2)
    connection, store = new_database(), ColumnStore()
    put(connection, {0: {"a": 1, "b": 1, "c": 1}, 1: {"b": 2}})
    assert matches_by_columns(store, connection, {"a": 1, "b": {"$lt": 2}, "c": 1}) == {0}
    assert list(store._columns) == ["b", "c"]
    assert matches_by_columns(store, connection, {"b": 2}) == {1}
    assert list(store._columns) == ["c", "b"]


def test_a_connection_at_an_older_state_is_answered_from_that_state(tmp_path):
    writer = new_database(tmp_path / "a.db")
    put(writer, {0: {"a": 1}, 1: {"a": 2}})
    old, new, store = sqlite3.connect(tmp_path / "a.db"), sqlite3.connect(tmp_path / "a.db"), ColumnStore()
    old.execute("BEGIN")
    assert matches_by_columns(store, old, {"a": 1}) == {0}
    put(writer, {0: None, 1: {"a": 1}, 2: {"a": 1}})
    assert matches_by_columns(store, new, {"a": 1}) == {1, 2}
    assert matches_by_columns(store, old, {"a": 1}) == {0}
    assert len(store.mask(parse_filter({}), old)) == 2
    old.execute("ROLLBACK")
    old.execute("BEGIN")
    assert old.execute("SELECT count(*) FROM live_items").fetchall() == [(2,)]
    put(writer, {3: {"a": 1}})
    assert matches_by_columns(store, new, {"a": 1}) == {1, 2, 3}
    statements = []
    old.set_trace_callback(statements.append)
    assert matches_by_columns(store, old, {"a": 1}) == {1, 2}
    assert not [statement for statement in statements if "group_concat" in statement], "the lagging columns are kept"
    old.execute("ROLLBACK")
    assert matches_by_columns(store, old, {"a": 1}) == {1, 2, 3}
    assert not new.in_transaction
    for connection in (writer, old, new):
        connection.close()


def test_a_read_only_connection_is_enough(tmp_path):
    writer = new_database(tmp_path / "a.db")
    put(writer, {0: {"a": 1}})
    reader = sqlite3.connect(f"file:{tmp_path / 'a.db'}?mode=ro", uri=True)
    reader.execute("PRAGMA query_only = 1")
    assert matches_by_columns(ColumnStore(), reader, {"a": 1}) == {0}
    reader.close()
    writer.close()


def test_an_interrupted_read_leaves_no_wrong_answer():
    connection, store = new_database(), ColumnStore()
    put(connection, shop(1000))
    matches_by_columns(store, connection, {"price": 5, "color": "red"})
    put(connection, {5: {"price": 6}, 6: {"price": 5}})
    for steps in (1, 10, 30, 100):
        connection.set_progress_handler(lambda: 1, steps)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            store.mask(parse_filter({"price": 5, "sku": {"$gt": "S1"}}), connection)
        connection.set_progress_handler(None, 0)
        assert not connection.in_transaction
        assert matches_by_columns(store, connection, {"price": 5}) == matches_by_sql(connection, {"price": 5})
        put(connection, {5: {"price": 6}, 6: {"price": 5, "color": str(steps)}})


def test_threads_reading_beside_a_writer_each_see_one_state(tmp_path):
    """In every transaction the mask is what SQL finds in the same transaction."""
    path = tmp_path / "a.db"
    writer, store, wrong, done = new_database(path), ColumnStore(), [], threading.Event()
    put(writer, shop(300))

    def read():
        connection = sqlite3.connect(path)
        while not done.is_set():
            connection.execute("BEGIN")
            for where in ({"price": {"$lt": 50}}, {"color": {"$ne": "red"}}, {"sku": {"$gte": "S2"}}):
                by_sql = matches_by_sql(connection, where)
                if matches_by_columns(store, connection, where) != by_sql:
                    wrong.append(where)
            connection.execute("ROLLBACK")
        connection.close()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(150):
        put(writer, {step: None, step + 300: {"price": step, "color": f"c{step % 7}", "sku": f"S{step}x"}})
    done.set()
    for reader in readers:
        reader.join()
    writer.close()
    assert wrong == []


def test_an_empty_database_has_an_empty_mask():
    connection = new_database()
    assert ColumnStore().mask(parse_filter({"a": {"$ne": 1}}), connection).shape == (0,)
