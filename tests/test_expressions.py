"""Filters as they are typed on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import QueryError
from retrieval.filters import parse_filter
from retrieval.filters.expressions import parse_expression


@pytest.mark.parametrize(
    ("expression", "where"),
    [
        ("price<60", {"price": {"$lt": 60.0}}),
        ("price <= 6.5", {"price": {"$lte": 6.5}}),
        ("price>-1e3", {"price": {"$gt": -1000.0}}),
        (" price>=0 ", {"price": {"$gte": 0.0}}),
        ("date>=2024-01-31", {"date": {"$gte": "2024-01-31"}}),
        ('year>="2024"', {"year": {"$gte": "2024"}}),
        ("color=gray", {"color": {"$in": ["gray"]}}),
        ("color==gray", {"color": {"$in": ["gray"]}}),
        ("color!=gray", {"color": {"$nin": ["gray"]}}),
        ("color=gray|dark blue | 'a|b'", {"color": {"$in": ["gray", "dark blue", "a|b"]}}),
        ("color!=gray|black", {"color": {"$nin": ["gray", "black"]}}),
        ("in_stock=true", {"in_stock": {"$in": [True, "true"]}}),
        ("in_stock=False", {"in_stock": {"$in": [False, "False"]}}),
        ("size=32", {"size": {"$in": [32.0, "32"]}}),
        ("size=032", {"size": {"$in": ["032"]}}),
        ("size='32'", {"size": {"$in": ["32"]}}),
        ("version=nan", {"version": {"$in": ["nan"]}}),
        ('name="a=b"', {"name": {"$in": ["a=b"]}}),
        ("name=a=b", {"name": {"$in": ["a=b"]}}),
        ('name="5"" pipe"', {"name": {"$in": ['5" pipe']}}),
        ('name=5" pipe', {"name": {"$in": ['5" pipe']}}),
        ("name=rock'n'roll", {"name": {"$in": ["rock'n'roll"]}}),
        ('brand=""', {"brand": {"$in": [""]}}),
        ("name=Smith, John", {"name": {"$in": ["Smith, John"]}}),
        ("title~hoodie", {"title": {"$contains": "hoodie"}}),
        ("title ~ warm hoodie", {"title": {"$contains": "warm hoodie"}}),
        ("title~'a|b'", {"title": {"$contains": "a|b"}}),
        ("title~red|blue", {"$or": [{"title": {"$contains": "red"}}, {"title": {"$contains": "blue"}}]}),
        ("size~32", {"$or": [{"size": {"$contains": 32.0}}, {"size": {"$contains": "32"}}]}),
        ("title!~red", {"$not": {"title": {"$contains": "red"}}}),
        ("'a~b'=c~d", {"a~b": {"$in": ["c~d"]}}),
        ("brand", {"brand": {"$exists": True}}),
        ("!brand", {"brand": {"$exists": False}}),
        ("size.width<5", {"size.width": {"$lt": 5.0}}),
        ("frame size=5", {"frame size": {"$in": [5.0, "5"]}}),
        ('"a<b"=x', {"a<b": {"$in": ["x"]}}),
        ("'frame size'", {"frame size": {"$exists": True}}),
        ("!'a!=b'", {"a!=b": {"$exists": False}}),
        ("颜色=灰", {"颜色": {"$in": ["灰"]}}),
    ],
)
def test_an_expression_parses_to_a_where_mapping(expression, where):
    assert parse_expression(expression) == where
    parse_filter(where)


@pytest.mark.parametrize(
    "expression",
    [
        *["", " ", "=5", "<5", "price<", "price=", "price=<5", "price=>5", "price<>5", "10<price<60", "price<5|6"],
        *[
            "a=b|",
            "a=|b",
            'a="b',
            'a="b"c',
            "!a=5",
            "price:60",
            "price 60",
            "a~",
            "~b",
            "!a~b",
            "'a'b=5",
            "a=x<y",
            "!",
            "!!a",
            "|",
        ],
    ],
)
def test_an_unreadable_expression_is_refused_with_the_forms(expression):
    with pytest.raises(QueryError, match=r"price<60, .*color=gray\|black") as caught:
        parse_expression(expression)
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        *["price<=60 and x=1", "price<60 AND price>5", "date>=2024-01-31 or !brand", "price<60 && in_stock=true"],
        *["price<60 and title~x", "title~red and price<60", "color=gray and price<60", "color=gray|black or price>60"],
    ],
)
def test_two_expressions_in_one_are_refused_with_what_to_write(expression):
    with pytest.raises(QueryError, match=r"has several conditions\. Give each its own --where") as caught:
        parse_expression(expression)
    assert repr(expression) in str(caught.value)


def test_a_value_may_contain_the_word_and():
    assert parse_expression("name>Bread and butter") == {"name": {"$gt": "Bread and butter"}}
    assert parse_expression("name='60 and x=1'") == {"name": {"$in": ["60 and x=1"]}}
    assert parse_expression("name<'60 and x=1'") == {"name": {"$lt": "60 and x=1"}}
    assert parse_expression("name=this and a=b") == {"name": {"$in": ["this and a=b"]}}


@pytest.mark.parametrize(
    "text", ["a" + " " * 50_000 + '"', "a=" + " " * 50_000 + "<", '"' * 50_001, "a=" + "b " * 50_000 + "<"]
)
def test_long_nonsense_is_refused_in_linear_time(text):
    with pytest.raises(QueryError):
        parse_expression(text)


@given(st.text(max_size=30) | st.text("ab\"'<>=!| 1.", max_size=12))
def test_any_text_is_a_filter_or_a_query_error(text):
    try:
        where = parse_expression(text)
    except QueryError:
        return
    if not next(iter(where)).startswith("$"):
        parse_filter(where)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_key_and_value_can_be_quoted(key, value):
    quoted = [f'"{part.replace(chr(34), chr(34) * 2)}"' for part in (key, value)]
    assert parse_expression("=".join(quoted)) == {key: {"$in": [value]}}
