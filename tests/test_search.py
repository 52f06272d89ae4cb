"""Filters, facets, sorting, paging, groups, floors and boosts equal a linear scan without an index or a column."""

import asyncio
import dataclasses
import inspect
import math
from collections import Counter
from functools import partial

import click
import numpy as np
import pytest
from fake_encoder import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from index.vectors import unit_rows
from retrieval.catalog import Boost, Catalog, SearchRequest
from retrieval.cli.searching import search
from retrieval.errors import QueryError
from retrieval.records.database import Database
from retrieval.server.schemas import SearchBody

DIMENSION = 5
COLORS = ("red", "Red", "BLUE", "blue", "Grün")
KEYS = ("color", "price", "new", "tags", "size.eu", "day", "nothing")

attributes = st.fixed_dictionaries(
    {},
    optional={
        "color": st.sampled_from(COLORS),
        "price": st.integers(0, 9) | st.sampled_from([2.5, "call us", True, None]),
        "new": st.booleans(),
        "tags": st.lists(st.sampled_from(["a", "b", "C", 3, False]), max_size=4),
        "size": st.fixed_dictionaries({}, optional={"eu": st.integers(38, 41)}),
        "day": st.sampled_from(["2026-01-31", "2026-02-01", "2025-12-24"]),
    },
)
conditions = st.sampled_from(
    [
        {},
        {"color": "RED"},
        {"price": {"$gte": 3}},
        {"price": {"$lt": 3}, "new": True},
        {"tags": {"$in": ["c", 3]}},
        {"$or": [{"size.eu": {"$gt": 39}}, {"color": {"$exists": False}}]},
        {"day": {"$gte": "2026-01-01", "$lt": "2026-02-01"}},
        {"$not": {"tags": "a"}},
        {"nothing": 1},
    ]
)
requests = st.fixed_dictionaries(
    {"k": st.integers(1, 12), "offset": st.sampled_from([0, 0, 1, 7])},
    optional={
        "where": conditions,
        "sort": st.lists(st.builds(str.__add__, st.sampled_from(["", "-"]), st.sampled_from(KEYS)), max_size=2),
        "group": st.sampled_from(KEYS),
        "floor": st.sampled_from([-0.5, 0.0, 0.4, 1.0]),
        "boosts": st.lists(
            st.builds(
                Boost,
                attribute=st.sampled_from(["price", "new", "size.eu"]),
                weight=st.sampled_from([-1.0, -0.3, 0.2, 1.0]),
                low=st.sampled_from([None, 2.0]),
                high=st.sampled_from([None, 5.0]),
            ),
            max_size=2,
        ),
        "facets": st.fixed_dictionaries(
            {},
            optional={
                "color": st.integers(1, 4),
                "tags": st.integers(1, 3),
                "price": st.just([[None, 3], [3, 6], [6, None]]),
                "day": st.just([["2026-01-01", "2026-02-01"]]),
            },
        ),
    },
)


# --- the linear scan


def values(item, key):
    """The values under a dotted key."""
    found = [item["attributes"]]
    for name in key.split("."):
        found = [one[name] for one in found if isinstance(one, dict) and name in one]
    flat = [inner for one in found for inner in (one if isinstance(one, list) else [one])]
    return [value for value in flat if value is not None]


def comparable(value):
    return value.casefold() if isinstance(value, str) else value


def kind(value):
    return 2 if isinstance(value, bool) else 1 if isinstance(value, str) else 0


def passes(item, where):
    for key, wanted in where.items():
        if key == "$or":
            if not any(passes(item, one) for one in wanted):
                return False
        elif key == "$not":
            if passes(item, wanted):
                return False
        elif not isinstance(wanted, dict):
            if not has(item, key, [wanted]):
                return False
        else:
            for operator, operand in wanted.items():
                if not holds(item, key, operator=operator, operand=operand):
                    return False
    return True


def has(item, key, wanted):
    pairs = {(kind(value), comparable(value)) for value in wanted}
    return any((kind(value), comparable(value)) in pairs for value in values(item, key))


def holds(item, key, *, operator, operand):
    if operator == "$exists":
        return bool(values(item, key)) == operand
    if operator == "$in":
        return has(item, key, operand)
    compare = {
        "$lt": lambda value: value < operand,
        "$gt": lambda value: value > operand,
        "$gte": lambda value: value >= operand,
    }[operator]
    return any(compare(comparable(value)) for value in values(item, key) if kind(value) == kind(operand))


def sort_key(item, key, *, descending):
    for rank in range(3):
        same = [comparable(value) for value in values(item, key) if kind(value) == rank]
        if same:
            return rank, (max if descending else min)(same)
    return 3, 0


def number(item, key):
    found = [float(value) for value in values(item, key) if kind(value) == 0]
    flags = [float(value) for value in values(item, key) if kind(value) == 2]
    return max(found) if found else max(flags) if flags else math.nan


def factor(item, items, boosts):
    total = 1.0
    for boost in boosts:
        every = [one for one in (number(other, boost.attribute) for other in items) if not math.isnan(one)]
        low = boost.low if boost.low is not None else min(every, default=0.0)
        high = boost.high if boost.high is not None else max(every, default=1.0)
        value = number(item, boost.attribute)
        if high > low and not math.isnan(value):
            total += boost.weight * min(max((value - low) / (high - low), 0), 1)
    return min(max(total, 0.5), 2.0)


def scanned(items, query, request):
    """Ids of the page, total, the items that count, and the size of each shown item's group."""
    found = []
    for item in items:
        score = 1.0 if query is None else max(float(row @ query) for row in item["image_vectors"])
        enough = "floor" not in request or query is None or score >= request["floor"]
        if passes(item, request.get("where", {})) and enough:
            found.append((score, item))
    counted = [item for _, item in found]
    boosts = request.get("boosts", ())
    moved = [(score * f if score >= 0 else score / f, item) for score, item, f in
             ((score, item, factor(item, items, boosts)) for score, item in found)]  # fmt: skip
    moved.sort(key=lambda pair: -pair[0])
    for name in reversed(request.get("sort", ())):
        key, descending = name.removeprefix("-"), name.startswith("-")
        moved.sort(key=partial(value_key, key=key, descending=descending), reverse=descending)
        moved.sort(key=partial(kind_key, key=key))
    shown, groups = [], {}
    for _, item in moved:
        group = sort_key(item, request["group"], descending=False) if "group" in request else (3, 0)
        name = item["id"] if group[0] == 3 else group
        if name not in groups:
            shown.append(item)
        groups[name] = groups.get(name, 0) + 1
    return shown[request["offset"] :][: request["k"]], counted, groups


def value_key(pair, *, key, descending):
    """Comparable among values of one kind; kinds are set apart by the stable sort that follows."""
    rank, value = sort_key(pair[1], key, descending=descending)
    return (rank, value)


def kind_key(pair, *, key):
    return sort_key(pair[1], key, descending=False)[0]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(attributes, min_size=1, max_size=25), st.lists(requests, min_size=1, max_size=6), st.integers(0, 99))
def test_search_with_all_options_equals_a_linear_scan(tmp_path_factory, described, asked, seed):
    generator = np.random.default_rng(seed)
    items = [
        {
            "id": f"item {place}",
            "image_vectors": unit_rows(generator.normal(size=(generator.integers(1, 3), DIMENSION))),
            "attributes": one,
        }
        for place, one in enumerate(described)
    ]
    with Catalog.open(tmp_path_factory.mktemp("search") / "c", create=True) as catalog:
        catalog.upsert(items)
        gone = {item["id"] for item in items[::5]} if len(items) > 5 else set()
        catalog.delete(sorted(gone))
        items = [item for item in items if item["id"] not in gone]
        for request in asked:
            query = (
                None if "where" in request and seed % 3 == 0 else unit_rows(generator.normal(size=(1, DIMENSION)))[0]
            )
            hits = catalog.search(vector=query, **{"where": None, **request})
            expected, counted, groups = scanned(items, query, request)
            assert [hit.id for hit in hits] == [item["id"] for item in expected], request
            assert [hit.rank for hit in hits] == [request["offset"] + place for place in range(1, len(hits) + 1)]
            assert hits.total == len(counted)
            check_facets(hits.facets, counted, request.get("facets", {}))
            if "group" in request and "floor" not in request:
                assert [hit.variants for hit in hits] == [size(groups, item, request["group"]) for item in expected]


def size(groups, item, key):
    group = sort_key(item, key, descending=False)
    return groups[item["id"] if group[0] == 3 else group]


def check_facets(facets, counted, asked):
    assert set(facets) == set(asked)
    for key, how in asked.items():
        found = facets[key]
        own = [{(kind(value), comparable(value)) for value in values(item, key)} for item in counted]
        assert found.missing == sum(not one for one in own)
        if isinstance(how, list):
            for (low, high), counts in zip(how, found.ranges, strict=True):
                within = [any(kind(high if low is None else low) == one and (low is None or low <= value) and
                              (high is None or value < high) for one, value in pairs) for pairs in own]  # fmt: skip
                assert counts.count == sum(within)
            continue
        counts = Counter(pair for one in own for pair in one)
        assert [count for _, count in found.values] == sorted(counts.values(), reverse=True)[:how]
        assert all(counts[kind(value), comparable(value)] == count for value, count in found.values)
        assert found.other == max(0, len(counts) - how)
        spelled = {value for item in counted for value in values(item, key) if isinstance(value, str)}
        assert {value for value, _ in found.values if isinstance(value, str)} <= spelled


# --- beyond the scan


@pytest.fixture
def shop(tmp_path):
    generator = np.random.default_rng(0)
    rows = unit_rows(generator.normal(size=(2500, DIMENSION)))
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(
            {"id": str(n), "image_vectors": rows[n : n + 1], "attributes": {"n": n, "g": n % 7, "one": "x"}}
            for n in range(2500)
        )
        yield catalog, rows


def test_pages_concatenate_to_the_full_ranking_and_grouping_searches_deep_enough(shop):
    catalog, rows = shop
    whole = [hit.id for hit in catalog.search(vector=rows[0], k=2500)]
    paged = [hit.id for offset in range(0, 2500, 499) for hit in catalog.search(vector=rows[0], k=499, offset=offset)]
    assert paged == whole
    cosines = (rows.astype(np.float64) @ rows[0].astype(np.float64)).astype(np.float32)
    assert whole == [str(n) for n in np.argsort(-cosines, kind="stable")]
    assert sorted(hit.attributes["g"] for hit in catalog.search(vector=rows[0], k=10, group="g")) == list(range(7))
    far = catalog.search(vector=rows[0], k=2, group="one", where={"n": {"$ne": -1}})
    assert [(hit.id, hit.variants) for hit in far] == [("0", 2500)]


def test_sort_orders_the_best_hits_and_everything_with_a_floor_or_without_a_query(shop):
    catalog, rows = shop
    best = [hit.attributes["n"] for hit in catalog.search(vector=rows[0], k=100)]
    assert [hit.attributes["n"] for hit in catalog.search(vector=rows[0], sort="n", k=7)] == sorted(best)[:7]
    assert [hit.attributes["n"] for hit in catalog.search(vector=rows[0], sort="n", k=7, offset=7)] == sorted(best)[
        7:14
    ]
    above = [hit.attributes["n"] for hit in catalog.search(vector=rows[0], k=2500) if hit.score >= 0.2]
    hits = catalog.search(vector=rows[0], sort="-n", k=7, floor=0.2)
    assert ([hit.attributes["n"] for hit in hits], hits.total) == (sorted(above, reverse=True)[:7], len(above))
    assert [hit.attributes["n"] for hit in catalog.search(where={}, sort="-n", k=3)] == [2499, 2498, 2497]


def test_facet_of_many_distinct_numbers_has_a_few_round_ranges_that_cover_all(shop):
    facet = shop[0].search(where={}, facets={"n": 20}).facets["n"]
    assert (facet.least, facet.greatest, facet.missing) == (0, 2499, 0)
    assert [(one.low, one.high, one.count) for one in facet.ranges] == [
        (None, 500, 500), (500, 1000, 500), (1000, 1500, 500), (1500, 2000, 500), (2000, None, 500)
    ]  # fmt: skip


def test_search_many_equals_single_searches_and_encodes_texts_in_one_forward_pass(tmp_path):
    encoder = FakeEncoder()
    generator = np.random.default_rng(1)
    with Catalog.open(tmp_path / "c", encoder=encoder) as catalog:
        catalog.upsert(
            {"id": str(n), "image_vectors": unit_rows(generator.normal(size=(2, 24))), "attributes": {"n": n}}
            for n in range(60)
        )
        asked = [
            {"text": "red", "k": 5},
            {"text": "a blue one", "k": 5},
            {"text": "red", "minus": "green", "k": 3, "where": {"n": {"$lt": 30}}},
            {"like": "3", "k": 9},
            {"text": "white", "k": 5, "sort": "-n"},
            {"vector": np.ones(24), "k": 5},
        ]
        alone = [catalog.search(**one) for one in asked]
        encoder.texts.clear()
        calls = []
        encode, encoder.encode_texts = encoder.encode_texts, lambda texts: calls.append(list(texts)) or encode(texts)
        together = catalog.search_many([SearchRequest(**one) for one in asked])
        assert together == alone
        assert calls == [["red", "a blue one", "green", "white"]]
        assert asyncio.run(catalog.asearch(SearchRequest(**asked[0]))) == alone[0]


def test_search_each_returns_the_error_of_a_failing_request_in_its_place(shop):
    catalog, rows = shop
    asked = [{"like": "0", "k": 1}, {"like": "unknown"}, {"vector": [1.0]}, {"vector": rows[5], "k": 1}]
    first, unknown, short, last = catalog.search_each([SearchRequest(**one) for one in asked])
    assert first[0].id != "0"
    assert [hit.id for hit in last] == ["5"]
    assert "no item 'unknown'" in str(unknown)
    assert isinstance(short, QueryError)
    with pytest.raises(QueryError, match="no item 'unknown'"):
        catalog.search_many([SearchRequest(**one) for one in asked])


def test_search_many_refuses_what_is_not_a_search_request(shop):
    catalog, _ = shop
    with pytest.raises(QueryError, match=r"search_many takes SearchRequests, not \{'text': 'red'\}"):
        catalog.search_many([SearchRequest(text="red"), {"text": "red"}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offset": -1}, "Invalid value for offset: -1. It must be a whole number of at least 0"),
        ({"k": 99_999, "offset": 2}, "at most 100,000"),
        ({"sort": [3]}, "name of an attribute, not 3"),
        ({"sort": {"price": 1}}, "sort must be a list"),
        ({"group": ""}, "group must be the name of an attribute"),
        ({"facets": "color"}, "Facets are a list"),
        ({"facets": {"price": [[1, "a"]]}}, "both numbers or both texts"),
        ({"facets": {"price": [[None, None]]}}, "both numbers or both texts"),
        ({"facets": {"price": 0}}, "from 1 to 1000"),
        ({"floor": 2}, "floor: 2. It must be a number of at least -1 and at most 1"),
        ({"boosts": [{"attribute": "a", "weight": 3}]}, "weight: 3. It must be a number of at least -1 and at most 1"),
        ({"boosts": [{"attribute": "a"}]}, "A boost must be"),
        ({"boosts": [{"attribute": "a", "weight": 0.1, "low": 3, "high": 3}]}, "must be below its high"),
        ({"mode": "magic"}, "mode: 'magic'. It must be one of vectors, words, hybrid"),
        ({"mode": "words"}, "needs a text"),
        ({"fusion": "worst"}, "fusion: 'worst'. It must be one of best, mean"),
        ({"caption_weight": 1.1}, "caption_weight: 1.1. It must be a number of at least 0 and at most 1"),
    ],
)
def test_invalid_arguments_are_refused_with_the_value_and_the_allowed_ones(arguments, message):
    with pytest.raises(QueryError, match=message):
        SearchRequest(**{"where": {}, **arguments})


def test_floor_returns_all_items_above_it(tmp_path):
    """More of them are above the floor than in the first window of candidates."""
    generator = np.random.default_rng(4)
    rows = unit_rows(generator.normal(size=(2, 1800, DIMENSION)).reshape(-1, DIMENSION)).reshape(2, 1800, DIMENSION)
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(
            {"id": str(n), "image_vectors": rows[0, n][None], "captions": [f"{n}"], "caption_vectors": rows[1, n][None]}
            for n in range(1800)
        )
        scores = rows.astype(np.float64) @ rows[0, 0].astype(np.float64)
        expected = int(np.sum(scores.mean(axis=0) >= -0.1))
        hits = catalog.search(vector=rows[0, 0], target="items", caption_weight=0.5, floor=-0.1, k=2000)
        assert len(hits) == hits.total == expected > 1000


# --- the request


def test_search_takes_the_fields_of_a_search_request_with_their_defaults():
    parameters = list(inspect.signature(Catalog.search).parameters.values())[1:]
    fields = [field for field in dataclasses.fields(SearchRequest) if field.init]
    assert [(one.name, one.default) for one in parameters] == [(field.name, field.default) for field in fields]


def test_http_and_the_command_line_have_every_field_of_a_search_request():
    fields = {field.name for field in dataclasses.fields(SearchRequest) if field.init}
    assert set(SearchBody.model_fields) == fields
    options = {param.name for param in search.get_params(click.Context(search))}
    assert fields - options == {"where", "vector", "facets", "boosts"}
    assert "filters" in options  # of `where`, as expressions


@pytest.mark.parametrize(
    ("item", "arguments", "mode"),
    [
        ({"captions": ["red"]}, {"text": "red"}, "hybrid"),
        ({"attributes": {"n": 1}}, {"text": "red"}, "hybrid"),
        ({"captions": ["red"]}, {"text": "red", "minus": "blue"}, "hybrid"),
        ({"captions": ["red"]}, {"text": "red", "target": "images"}, "hybrid"),
        ({}, {"text": "red"}, "vectors"),
        ({"captions": ["red"]}, {"text": "red", "mode": "vectors"}, "vectors"),
        ({"captions": ["red"]}, {"text": "red", "target": "captions"}, "vectors"),
        ({"captions": ["red"]}, {"text": "red", "vector": np.ones(24)}, "vectors"),
        ({"captions": ["red"]}, {"text": "red", "like": "b"}, "vectors"),
        ({"captions": ["red"]}, {"vector": np.ones(24)}, "vectors"),
        ({"captions": ["red"]}, {"where": {}}, "vectors"),
    ],
)
def test_text_alone_is_a_hybrid_search_where_the_catalog_has_words(tmp_path, item, arguments, mode):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        rows = np.eye(24, dtype=np.float32)
        catalog.upsert([{"id": "a", "image_vectors": rows[:1], **item}, {"id": "b", "image_vectors": rows[1:2]}])
        hits = catalog.search(**arguments)
        assert hits
        assert {hit.target for hit in hits} == {arguments.get("target", "items" if mode == "hybrid" else "images")}
        assert all(bool(hit.ranks) == (mode == "hybrid") for hit in hits)


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({"image": b""}, "captions"),
        ({"image": b"", "minus": "red"}, "images"),
        ({"like": "a"}, "images"),
        ({"vector": [1]}, "images"),
    ],
)
def test_an_image_alone_ranks_captions_and_other_queries_images(arguments, target):
    assert SearchRequest(**arguments).resolve(has_captions=True, has_words=True).target == target
    assert SearchRequest(**arguments).resolve(has_captions=False, has_words=True).target == "images"


def test_like_searches_with_the_normalized_mean_of_an_items_pictures(tmp_path):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(3)[:2]}, {"id": "b", "image_vectors": [[1.0, 1.0, 0.0]]}])
        assert catalog.search(like="a")[0].score == pytest.approx(1, abs=1e-6)


def test_text_is_searched_by_vectors_again_once_the_last_words_are_removed(tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(24)[:1], "captions": ["red"], "attributes": {"n": 1}}])
        assert catalog.search("red")[0].target == "items"
        catalog.upsert([{"id": "a", "image_vectors": np.eye(24)[:1]}])
        assert catalog.search("red")[0].target == "images"


@pytest.mark.parametrize("arguments", [{"text": "red"}, {"image": b"", "text": "red"}, {"where": {"n": 1}}])
def test_search_opens_one_read_transaction(tmp_path, monkeypatch, arguments):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(24)[:1], "captions": ["red"], "attributes": {"n": 1}}])
        if "image" in arguments:
            arguments |= {"image": Image.new("RGB", (8, 8))}
        opened, reading = [], Database.reading

        def count(database):
            opened.append(database)
            return reading(database)

        monkeypatch.setattr(Database, "reading", count)
        assert catalog.search(**arguments)[0].id == "a"
        assert len(opened) == 1


# --- items as wholes


@pytest.mark.parametrize(
    "asked", [{"vector": [1, 0]}, {"vector": [1, 0], "floor": -1}, {"like": "five"}, {"where": {}}]
)
def test_total_counts_each_distinct_caption_once(tmp_path, asked):
    """Seven items share a text, one has five, one none; a filter lets two of the seven through."""
    texts = [[0, "shared"]] * 7 + [[number, f"own {number}"] for number in range(1, 6)]
    owners = [f"{number}" for number in range(7)] + ["five"] * 5
    items = {name: {"id": name, "image_vectors": [[1.0, 2.0]], "attributes": {"n": name}} for name in [*owners, "none"]}
    for (number, text), owner in zip(texts, owners, strict=True):
        items[owner].setdefault("captions", []).append(text)
        items[owner].setdefault("caption_vectors", []).append([1.0, float(number)])
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(list(items.values()))
        catalog.delete(["0"])
        search = partial(catalog.search, target="captions", **asked)
        own = [] if "like" in asked else [f"own {number}" for number in range(1, 6)]
        for k in (1, 3, 50):
            hits = search(k=k)
            assert (hits.total, [hit.caption for hit in hits]) == (1 + len(own), ["shared", *own][:k])
        assert [hit.caption for hit in search(k=2, offset=1)] == own[:2]
        for where, expected in [
            ({"n": {"$in": ["3", "2"]}}, ["shared"]),
            ({"n": {"$in": ["3", "five"]}}, ["shared", *own]),
            ({"n": "none"}, []),
        ]:
            hits = search(where=where)
            assert (hits.total, [hit.caption for hit in hits]) == (len(expected), expected)
            assert all(hit.id == "2" for hit in hits if hit.caption == "shared" and "2" in str(where))


def test_item_score_fuses_its_pictures_and_captions(tmp_path):
    generator = np.random.default_rng(3)
    items = [
        {
            "id": str(n),
            "image_vectors": unit_rows(generator.normal(size=(3, DIMENSION))),
            "captions": [f"{n} a", f"{n} b"] if n % 4 else [],
            "caption_vectors": unit_rows(generator.normal(size=(2, DIMENSION))) if n % 4 else None,
        }
        for n in range(40)
    ]
    query = unit_rows(generator.normal(size=(1, DIMENSION)))[0]
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(items)
        for fusion, join in (("best", np.max), ("mean", np.mean)):
            for weight in (0.0, 0.3, 1.0):
                hits = catalog.search(vector=query, target="items", fusion=fusion, caption_weight=weight, k=40)
                plain = {
                    item["id"]: join(item["image_vectors"] @ query) * (1 - weight if item["captions"] else 1)
                    + (join(item["caption_vectors"] @ query) * weight if item["captions"] else 0)
                    for item in items
                }
                assert [hit.id for hit in hits] == sorted(plain, key=lambda name: -plain[name])
                assert [hit.score for hit in hits] == pytest.approx(sorted(plain.values(), reverse=True), abs=1e-6)
                assert hits.total == 40


def test_learned_caption_weight_is_recorded_and_used(tmp_path):
    """With informative captions and identical pictures the captions get all the weight; and the other way round."""
    encoder, words = FakeEncoder(), ("red", "green", "blue", "white", "black")
    told, same = encoder.encode_texts(words), encoder.encode_texts(["a grey day"])
    for truth in ("captions", "images"):
        with Catalog.open(tmp_path / truth, encoder=encoder) as catalog:
            rows = {"captions": (same, told), "images": (told, same)}[truth]
            catalog.upsert(
                {
                    "id": word,
                    "image_vectors": rows[0][place % len(rows[0])][None],
                    "captions": [f"item {place}"],
                    "caption_vectors": rows[1][place % len(rows[1])][None],
                }
                for place, word in enumerate(words)
            )
            weight = catalog.learn_caption_weight({word: [word] for word in words})
            assert (weight > 0) if truth == "captions" else (weight == 0)
            hits = catalog.search("blue", target="items", k=5)
            expected = catalog.search("blue", target="items", k=5, caption_weight=weight)
            assert hits == expected
            assert hits[0].id == "blue"
            with pytest.raises(QueryError, match="right items"):
                catalog.learn_caption_weight({"red": []})
