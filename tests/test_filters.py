"""The `where` language: what it means, and what it refuses."""

import math

import numpy as np
import pytest

from retrieval.errors import QueryError
from retrieval.filters import filter_keys, parse_filter
from retrieval.filters.operators import Comparison, Compound, Contains, Exists, In
from retrieval.filters.values import BOOLEAN, NUMBER, TEXT, normalize_value


def all_of(*conditions):
    return Compound("$and", conditions)


def any_of(*conditions):
    return Compound("$or", conditions)


def negated(condition):
    return Compound("$not", (condition,))


def number(key, *values):
    return In(key, frozenset((NUMBER, float(value)) for value in values))


def text(key, *values):
    return In(key, frozenset((TEXT, value) for value in values))


@pytest.mark.parametrize(
    ("where", "meaning"),
    [
        ({}, all_of()),
        ({"price": 5}, number("price", 5)),
        ({"price": {"$eq": 5}}, number("price", 5)),
        ({"color": "GRAY"}, text("color", "gray")),
        ({"name": "Straße"}, text("name", "strasse")),
        ({"name": "e\u0301"}, text("name", "\u00e9")),
        ({"sale": True}, In("sale", frozenset([(BOOLEAN, True)]))),
        ({"color": {"$ne": "gray"}}, negated(text("color", "gray"))),
        ({"color": {"$in": ["Gray", "red"]}}, text("color", "gray", "red")),
        ({"color": {"$nin": ("Gray",)}}, negated(text("color", "gray"))),
        ({"a": {"$in": []}}, In("a", frozenset())),
        ({"a": None}, any_of(In("a", frozenset()), negated(Exists("a")))),
        ({"a": {"$exists": True}}, Exists("a")),
        ({"a": {"$exists": False}}, negated(Exists("a"))),
        ({"a": {"$not": {"$lt": 3}}}, negated(Comparison("a", "$lt", 3.0))),
        ({"$not": {"a": {"$gte": "B"}}}, negated(Comparison("a", "$gte", "b"))),
        ({"a": {"$gt": 1, "$lte": 2}}, all_of(Comparison("a", "$gt", 1.0), Comparison("a", "$lte", 2.0))),
        ({"a": 1, "b": 2}, all_of(number("a", 1), number("b", 2))),
        ({"$or": [{"a": 1}, {"b": 2}]}, any_of(number("a", 1), number("b", 2))),
        ({"$and": [{"a": 1}, {"$or": [{"b": 2}]}]}, all_of(number("a", 1), any_of(number("b", 2)))),
        ({"a": {"$contains": "Ré"}}, Contains("a", "ré")),
        ({"a": {"$contains": 5}}, number("a", 5)),
        ({"a": {"$not": {"$contains": "red"}}}, negated(Contains("a", "red"))),
        ({"a": np.float32(0.5)}, number("a", 0.5)),
        ({"a": {"$in": [np.int64(3), np.bool_(1)]}}, In("a", frozenset([(BOOLEAN, True), (NUMBER, 3.0)]))),
        ({"a": 10**400}, number("a", math.inf)),
        ({"a": -(10**400)}, number("a", -math.inf)),
    ],
)
def test_a_where_mapping_parses_to_conditions(where, meaning):
    assert parse_filter(where) == meaning


def test_true_is_not_equal_to_one():
    assert parse_filter({"a": True}) != parse_filter({"a": 1})
    assert parse_filter({"a": {"$in": [1, True, 0]}}) == In(
        "a", frozenset([(BOOLEAN, True), (NUMBER, 0.0), (NUMBER, 1.0)])
    )


def test_integers_that_share_a_float64_are_equal():
    assert normalize_value(2**53 + 1) == normalize_value(2**53) == float(2**53)


def test_nul_and_lone_surrogates_are_escaped():
    assert normalize_value("a\0B\ud800") == "a\\x00b\\ud800"


def test_keys_of_a_filter_are_those_of_all_its_conditions():
    where = {"$or": [{"a": 1}, {"$not": {"b": {"$lt": 2}}}], "c": {"$exists": True}}
    assert filter_keys(parse_filter(where)) == {"a", "b", "c"}


def cyclic():
    where = {}
    where["$not"] = where
    return where


def deep(levels):
    where = {"a": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": {"$lte ": 3}}, r"'\$lte '.*did you mean \$lte"),
        ({"a": {"$regex": 3}}, r"'\$regex' under 'a'; known here: \$eq \$ne \$in"),
        ({"a": {"$contains": None}}, r"\$contains under 'a' takes a text"),
        ({"a": {"$contains": ["red"]}}, "text, a number or a boolean"),
        ({"a": {"$or": [1]}}, r"'\$or' under 'a'"),
        ({"$nor": [{"a": 1}]}, r"'\$nor'.*did you mean \$or"),
        ({"$or": []}, r"\$or needs a list of at least one condition, not \[\]"),
        ({"$or": {"a": 1}}, r"\$or needs a list"),
        ({"$and": [{"a": 1}, 5]}, "A filter is a mapping.*not 5"),
        ({"$not": []}, "A filter is a mapping"),
        ("price<60", "A filter is a mapping.*'price<60'"),
        ({"a": {}}, r"'a' needs operators such as"),
        ({"a": {"$not": "red"}}, r"'a' needs operators.*unequal is \$ne"),
        ({"a": {"b": 3}}, "'b' under 'a' is not an operator.*dotted"),
        ({"a": {"$lt": 3, "b": 3}}, "'b' under 'a' is not an operator"),
        ({"a": {5: 3}}, "5 under 'a' is not an operator"),
        ({"a": {"$in": "red"}}, r"\$in under 'a' needs a list of values, not 'red'"),
        ({"a": {"$nin": 3}}, r"\$nin under 'a' needs a list"),
        ({"a": ["red"]}, r"any of a list is \$in"),
        ({"a": {"$in": [["red"]]}}, r"any of a list is \$in"),
        ({"a": object()}, "text, a number or a boolean"),
        ({"a": {"$lt": None}}, r"\$lt under 'a' takes a number or text, not None"),
        ({"a": {"$gt": True}}, r"\$gt under 'a' takes a number or text, not True"),
        ({"a": math.nan}, "NaN"),
        ({"a": {"$exists": 1}}, r"\$exists under 'a' is true or false, not 1"),
        ({3: "red"}, "by text, not by 3"),
        ({"a": {"$in": [1] * 200_001}}, "more than 200,000 values"),
        ({"$or": [{"a": 1}] * 300}, "more than 256 conditions"),
        ({"$or": [{}] * 300}, "more than 256 conditions"),
        (deep(100_000), "more than 24 deep"),
        (cyclic(), "more than 24 deep"),
        ({"a": {"$in": 10**5000}}, "a huge int"),
        ({"\ud800": {"$foo": 1}}, r"'\\\\ud800'"),
    ],
)
def test_an_invalid_filter_is_refused_with_the_reason(where, message):
    with pytest.raises(QueryError, match=message) as caught:
        parse_filter(where)
    assert len(str(caught.value).encode()) < 300


def test_a_filter_of_the_greatest_depth_and_width_is_parsed():
    assert parse_filter(deep(23)) is not None
    assert len(parse_filter({"$or": [{"a": value} for value in range(255)]}).conditions) == 255
