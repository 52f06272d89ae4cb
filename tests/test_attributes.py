"""Attributes in SQLite: what is stored, and which items filters find in it."""

import math
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import CatalogError
from retrieval.filters import parse_filter
from retrieval.filters.attributes import (
    SCHEMA,
    delete_attributes,
    flatten_attributes,
    list_attribute_keys,
    store_attributes,
)
from retrieval.filters.column_store import ColumnStore
from retrieval.filters.values import BOOLEAN, NUMBER, TEXT


def catalog(*items):
    """A database of these items, numbered from 0."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA + "CREATE TABLE live_items (item INTEGER PRIMARY KEY);")
    with connection:
        connection.executemany("INSERT INTO live_items VALUES (?)", [(number,) for number in range(len(items))])
        store_attributes(connection, enumerate(items))
    return connection


def matches(connection, where):
    connection.commit()
    return np.flatnonzero(ColumnStore().mask(parse_filter(where), connection)).tolist()


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
def test_attributes_are_flattened_to_rows(attributes, rows):
    assert flatten_attributes(attributes) == rows
    assert {type(value) for _, kind, value in flatten_attributes(attributes) if kind == NUMBER} <= {float}


def test_deep_nesting_is_flattened():
    value = 1
    for _ in range(5000):
        value = [value]
    assert flatten_attributes({"a": value}) == {("a", NUMBER, 1.0)}


@pytest.mark.parametrize(
    ("attributes", "message"), [({"a": {1: 2}}, "not 1"), ({"a": [object()]}, "'a' is <object"), ({"a": b"x"}, "b'x'")]
)
def test_values_that_json_does_not_have_are_refused(attributes, message):
    with pytest.raises(CatalogError, match=message):
        flatten_attributes(attributes)


def test_filters_tell_one_from_true_and_a_number_from_its_text():
    connection = catalog({"a": 1}, {"a": True}, {"a": "1"}, {"a": [True, 5]}, {"a": "5"})
    assert matches(connection, {"a": 1}) == [0]
    assert matches(connection, {"a": True}) == [1, 3]
    assert matches(connection, {"a": {"$in": [5, "5"]}}) == [3, 4]


def test_storing_again_replaces_and_deleting_removes():
    connection = catalog({"a": 1, "b": 1}, {"a": 1})
    store_attributes(connection, [(0, {"a": 2})])
    assert matches(connection, {"a": 1}) == [1]
    assert matches(connection, {"b": {"$exists": True}}) == []
    delete_attributes(connection, [1])
    assert matches(connection, {"a": {"$exists": True}}) == [0]


def test_each_change_of_an_item_gives_it_a_greater_revision():
    connection = catalog({}, {"a": 1}, {})
    store_attributes(connection, [(1, {})])
    delete_attributes(connection, [2])
    store_attributes(connection, [(1, {"a": 2})])
    changes = connection.execute("SELECT revision, item FROM attribute_changes ORDER BY revision").fetchall()
    assert [item for _, item in changes] == [0, 2, 1]
    assert changes[-1][0] == 6


def test_attribute_keys_are_listed_once_and_sorted():
    assert list_attribute_keys(catalog({"b": [1, "x"], "a": {"c": True}}, {"b": 2, "": 0}, {"gone": None})) == [
        "",
        "a.c",
        "b",
    ]
    assert list_attribute_keys(catalog()) == []


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
def test_hostile_texts_match_themselves_and_nothing_else(text, where):
    connection = catalog(*[{other: 1, "a": other} for other in HOSTILE], {"a": "harmless"})
    assert matches(connection, where(text)) == [HOSTILE.index(text)]


def test_a_filter_may_list_50_000_values():
    connection = catalog(*[{"a": f"sku {number}", "b": number / 7} for number in range(20)])
    assert matches(connection, {"a": {"$in": [f"SKU {number}" for number in range(5, 50_005)]}}) == list(range(5, 20))
    assert matches(connection, {"b": {"$in": [number / 7 for number in range(5, 50_005)]}}) == list(range(5, 20))


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20, unique=True))
def test_every_number_of_a_list_is_matched_exactly(numbers):
    stored = [*numbers, *(math.nextafter(number, 1) for number in numbers)]
    connection = catalog(*[{"a": number} for number in stored])
    expected = [place for place, number in enumerate(stored) if number in numbers]
    assert matches(connection, {"a": {"$in": numbers}}) == expected


@pytest.mark.parametrize("connective", ["$and", "$or"])
def test_the_deepest_and_the_widest_filter_are_evaluated(connective):
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


def test_a_filter_ignores_items_that_are_not_live():
    connection = catalog({"a": 1}, {"a": 1})
    connection.execute("DELETE FROM live_items WHERE item = 0")
    assert matches(connection, {"a": 1}) == [1]
    assert matches(connection, {"a": {"$ne": 2}}) == [1]
