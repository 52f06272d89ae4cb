"""Attributes in SQLite: what is stored, and that no text of a user becomes SQL."""

import math
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import CatalogError, QueryError
from retrieval.filters import parse_filter
from retrieval.filters.attributes import (
    BOOLEAN,
    NUMBER,
    SCHEMA,
    TEXT,
    attribute_keys,
    filter_sql,
    flatten,
    forget_attributes,
    store_attributes,
)


def catalog(*items):
    """A database of these items, numbered from 0."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA + "CREATE TABLE live_items (item INTEGER PRIMARY KEY);")
    with connection:
        connection.executemany("INSERT INTO live_items VALUES (?)", [(number,) for number in range(len(items))])
        store_attributes(connection, enumerate(items))
    return connection


def matches(connection, where):
    sql, parameters = filter_sql(parse_filter(where))
    return [item for (item,) in connection.execute(f"{sql} ORDER BY item", parameters)]


@pytest.mark.parametrize(
    ("attributes", "rows"),
    [
        (
            {"price": 5, "sale": True, "name": "GRAY"},
            {("price", NUMBER, 5), ("sale", BOOLEAN, 1), ("name", TEXT, "gray")},
        ),
        ({"color": ["Red", "red", 3, None]}, {("color", TEXT, "red"), ("color", NUMBER, 3)}),
        ({"a": None, "b": math.nan, "c": [], "d": {}, "e": [[], {}]}, set()),
        ({"size": {"width": 5, "unit": {"name": "cm"}}}, {("size.width", NUMBER, 5), ("size.unit.name", TEXT, "cm")}),
        (
            {"sizes": [{"eu": 40}, {"eu": 41}, [42]]},
            {("sizes.eu", NUMBER, 40), ("sizes.eu", NUMBER, 41), ("sizes", NUMBER, 42)},
        ),
        ({"n": 2**53 + 1, "m": 10**400}, {("n", NUMBER, 2.0**53), ("m", NUMBER, math.inf)}),
        ({"a\0": "b\0", "\ud800": "\udfff"}, {("a\\x00", TEXT, "b\\x00"), ("\\ud800", TEXT, "\\udfff")}),
        ({"": ""}, {("", TEXT, "")}),
    ],
)
def test_attributes_are_flattened_to(attributes, rows):
    assert flatten(attributes) == rows
    assert {type(value) for _, kind, value in flatten(attributes) if kind == NUMBER} <= {float}


def test_deep_nesting_is_no_crash():
    value = 1
    for _ in range(5000):
        value = [value]
    assert flatten({"a": value}) == {("a", NUMBER, 1.0)}


@pytest.mark.parametrize(
    ("attributes", "message"), [({"a": {1: 2}}, "not 1"), ({"a": [object()]}, "'a' is <object"), ({"a": b"x"}, "b'x'")]
)
def test_what_is_not_json_is_refused(attributes, message):
    with pytest.raises(CatalogError, match=message):
        flatten(attributes)


def test_one_and_true_are_apart_and_so_are_five_and_its_text():
    connection = catalog({"a": 1}, {"a": True}, {"a": "1"}, {"a": [True, 5]}, {"a": "5"})
    assert matches(connection, {"a": 1}) == [0]
    assert matches(connection, {"a": True}) == [1, 3]
    assert matches(connection, {"a": {"$in": [5, "5"]}}) == [3, 4]


def test_storing_again_replaces_and_forgetting_removes():
    connection = catalog({"a": 1, "b": 1}, {"a": 1})
    store_attributes(connection, [(0, {"a": 2})])
    assert matches(connection, {"a": 1}) == [1]
    assert matches(connection, {"b": {"$exists": True}}) == []
    forget_attributes(connection, [1])
    assert matches(connection, {"a": {"$exists": True}}) == [0]


def test_each_change_of_an_item_moves_it_to_a_new_and_greater_revision():
    connection = catalog({}, {"a": 1}, {})
    store_attributes(connection, [(1, {})])
    forget_attributes(connection, [2])
    store_attributes(connection, [(1, {"a": 2})])
    changes = connection.execute("SELECT revision, item FROM attribute_changes ORDER BY revision").fetchall()
    assert [item for _, item in changes] == [0, 2, 1]
    assert changes[-1][0] == 6


def test_keys_are_listed_once_and_sorted():
    assert attribute_keys(catalog({"b": [1, "x"], "a": {"c": True}}, {"b": 2, "": 0}, {"gone": None})) == [
        "",
        "a.c",
        "b",
    ]
    assert attribute_keys(catalog()) == []


HOSTILE = [
    "'; DROP TABLE attributes; --",
    '"',
    "' OR '1'='1",
    "?",
    ":a",
    "%",
    "_",
    "\0",
    "a\0b",
    "\ud800",
    "]]",
    "{",
    "\\",
    "é\u0301",
]


@pytest.mark.parametrize(
    "where", [lambda text: {text: 1}, lambda text: {"a": text}, lambda text: {"a": {"$in": [text, "other"]}}]
)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_user_becomes_sql(text, where):
    """It is found as itself and nothing else is, and the statement has none of it."""
    connection = catalog(*[{other: 1, "a": other} for other in HOSTILE], {"a": "harmless"})
    assert matches(connection, where(text)) == [HOSTILE.index(text)]
    statement, _ = filter_sql(parse_filter(where("unlikely text")))
    assert statement == filter_sql(parse_filter(where(text)))[0]
    assert "unlikely" not in statement


def test_50_000_values_are_one_parameter():
    connection = catalog(*[{"a": f"sku {number}", "b": number / 7} for number in range(20)])
    assert matches(connection, {"a": {"$in": [f"SKU {number}" for number in range(5, 50_005)]}}) == list(range(5, 20))
    assert matches(connection, {"b": {"$in": [number / 7 for number in range(5, 50_005)]}}) == list(range(5, 20))
    assert len(filter_sql(parse_filter({"b": {"$in": [number / 7 for number in range(50_000)]}}))[1]) == 2


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20, unique=True))
def test_every_number_of_a_list_is_found_exactly(numbers):
    """Through JSON in decimals SQLite would be free to take one for its neighbour."""
    stored = [*numbers, *(math.nextafter(number, 1) for number in numbers)]
    connection = catalog(*[{"a": number} for number in stored])
    expected = [place for place, number in enumerate(stored) if number in numbers]
    assert matches(connection, {"a": {"$in": numbers}}) == expected


def test_more_odd_numbers_than_sqlite_takes_are_refused():
    with pytest.raises(QueryError, match="30,000 tiny or huge numbers"):
        filter_sql(parse_filter({"a": {"$in": [number * 1e-30 for number in range(1, 40_000)]}}))


@pytest.mark.parametrize("connective", ["$and", "$or"])
def test_sqlite_takes_the_deepest_and_the_widest_filter(connective):
    connection = catalog({"a": 1}, {"a": 2})
    deep = {"a": 1}
    for _ in range(11):
        deep = {connective: [deep]}
    assert matches(connection, deep) == [0]
    wide = {connective: [{"a": {"$lt": 1.5}}] * 85}
    assert matches(connection, wide) == [0]
    mixed = {"a": 1}
    for _ in range(23):
        mixed = {"$not": mixed}
    assert matches(connection, mixed) == [1]


def test_a_filter_reads_an_index_and_not_the_table():
    connection = catalog({"a": 1})
    sql, parameters = filter_sql(parse_filter({"a": {"$lt": 5}, "b": {"$in": ["x", "y"]}, "c": 1}))
    plan = " / ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
    assert plan.count("USING COVERING INDEX attributes_by_value (key=? AND kind=? AND value") == 3
    assert "SCAN attributes" not in plan


def test_the_sql_of_a_filter_ignores_items_that_are_not_live():
    connection = catalog({"a": 1}, {"a": 1})
    connection.execute("DELETE FROM live_items WHERE item = 0")
    assert matches(connection, {"a": 1}) == [1]
    assert matches(connection, {"a": {"$ne": 2}}) == [1]
