"""Search by words: against BM25 in plain Python, through every change, with mistakes, in scripts without spaces."""

import math
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.catalog.items import encode_attributes
from retrieval.records import Records, StoredCaption, StoredItem, schema
from retrieval.words import search
from retrieval.words.search import MAX_SHARED, WordSearch
from retrieval.words.spelling import SpellingIndex, select_corrections
from retrieval.words.store import ALL_ITEMS, COLUMN_WEIGHTS, index_all_items, is_naming_attribute
from retrieval.words.tokens import normalize_identifier, tokenize


def shop(*items):
    """Records in memory of items, each a mapping that may have id, captions and attributes; numbered from 1."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    schema.create(connection)
    records = Records(connection, Path())
    put(records, *items)
    return records


def put(records, *items):
    attributes = [item.get("attributes", {}) for item in items]
    known = records.numbers_of([item["id"] for item in items if "id" in item])
    records.put_items(
        [
            StoredItem(
                name := item.get("id", f"item {place}"),
                known.get(name),
                encode_attributes(one),
                None,
                [],
                [StoredCaption(text, slot) for slot, text in enumerate(item.get("captions", []))],
            )
            for place, (item, one) in enumerate(zip(items, attributes, strict=True))
        ],
        attributes,
    )


def titled(*titles):
    return shop(*({"captions": [title]} for title in titles))


def ranked(records, text, *, depth=10, allowed=None, search=None):
    return (search or WordSearch()).search(records.connection, text, depth=depth, allowed=allowed)


def items(records, text, **options):
    return [one.item for one in ranked(records, text, **options)]


def identified(records, text, **options):
    return WordSearch().find_identified(records.connection, text, **options)


# --- BM25 in plain Python

WORDS = ["red", "bag", "hat", "cup", "mug", "pen"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
ITEMS = st.fixed_dictionaries(
    {
        "captions": st.lists(TEXTS.filter(bool), max_size=3),
        "attributes": st.fixed_dictionaries({}, optional={"brand": TEXTS, "color": TEXTS, "about": TEXTS}),
    }
)
CORPORA = st.lists(ITEMS, min_size=1, max_size=12)
QUERIES = st.lists(st.sampled_from([*WORDS, "zzz"]), min_size=1, max_size=4, unique=True).map(" ".join)


def columns(item, number):
    names = Counter(dict.fromkeys(f"item {number} {item['attributes'].get('brand', '')}".split(), 1))
    title = Counter(" ".join(item["captions"][:1]).split())
    text = Counter(" ".join(item["captions"][1:]).split())
    facts = (value for key, value in item["attributes"].items() if key != "brand" and value not in item["captions"])
    return [names, title, text, Counter(" ".join(facts).split())]


def plain_bm25(corpus, query):
    """Scores by item number, after Robertson and Zaragoza."""
    documents = {number: columns(item, number - 1) for number, item in enumerate(corpus, 1)}
    lengths = {number: sum(sum(column.values()) for column in one) for number, one in documents.items()}
    average = sum(lengths.values()) / len(lengths)
    scores = {}
    for number, one in documents.items():
        for word in query.split():
            count = sum(word in set().union(*other) for other in documents.values())
            weight = math.log(1 + (len(documents) - count + 0.5) / (count + 0.5))
            seen = sum(times * column[word] for times, column in zip(COLUMN_WEIGHTS.values(), one, strict=True))
            if seen:
                share = seen * 2.2 / (seen + 1.2 * (0.25 + 0.75 * lengths[number] / average))
                scores[number] = scores.get(number, 0) + weight * share
    return scores


@given(corpus=CORPORA, query=QUERIES)
@settings(deadline=None)
def test_scores_and_order_are_those_of_bm25(corpus, query):
    found, expected = ranked(shop(*corpus), query, depth=100), plain_bm25(corpus, query)
    assert {one.item: one.score for one in found} == pytest.approx(expected, rel=1e-9)
    assert found == sorted(found, key=lambda one: (-one.score, one.item))


@given(corpus=CORPORA, query=QUERIES, depth=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_a_filter_loses_no_hit_and_changes_no_score(corpus, query, depth, data):
    allowed = np.array([False, *data.draw(st.lists(st.booleans(), min_size=len(corpus), max_size=len(corpus)))])
    records = shop(*corpus)
    every = [one for one in ranked(records, query, depth=100) if allowed[one.item]]
    assert ranked(records, query, depth=depth, allowed=allowed) == every[:depth]


@given(corpus=CORPORA, query=QUERIES, most=st.integers(1, 8), depth=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_limiting_common_words_loses_no_hit(corpus, query, most, depth, data):
    flags = data.draw(st.lists(st.booleans(), min_size=len(corpus), max_size=len(corpus)))
    allowed = data.draw(st.sampled_from([None, np.array([False, *flags])]))
    records, expected = shop(*corpus), plain_bm25(corpus, query)
    possible = {item for item in expected if allowed is None or allowed[item]}
    before, search.MAX_SCORED = search.MAX_SCORED, most
    try:
        found = ranked(records, query, depth=depth, allowed=allowed)
    finally:
        search.MAX_SCORED = before
    assert {one.item for one in found} <= possible
    assert len(found) == len({one.item for one in found}) == min(depth, len(possible))
    assert all(one.score <= expected[one.item] * (1 + 1e-9) for one in found)


def test_a_common_word_reranks_the_hits_of_a_rare_one(monkeypatch):
    records = titled(*["black shirt"] * 20, "red hoodie warm", "black hoodie warm", "blue hoodie warm")
    monkeypatch.setattr(search, "MAX_SCORED", 5)
    assert items(records, "black hoodie", depth=3) == [22, 21, 23]
    assert items(records, "black hoodie", depth=5) == [22, 21, 23, 1, 2]


def test_a_word_of_most_items_still_has_weight():
    records = titled("yoga pant men", *["yoga pant women"] * 5)
    assert items(records, "women's yoga pants", depth=1) == [2]


# --- in step


def dumped(records):
    """The whole full-text index, without the numbers that words of deleted items had."""
    queries = [
        "SELECT rowid, names, title, text, facts FROM words ORDER BY rowid",
        "SELECT word, items FROM vocabulary ORDER BY word",
        "SELECT * FROM identifiers ORDER BY item, key, spelled",
    ]
    return [records.connection.execute(sql).fetchall() for sql in queries]


def rebuilt(records):
    """The index that the migration builds from the same items."""
    for table in ("words", "vocabulary", "identifiers"):
        records.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
    index_all_items(records.connection)
    return dumped(records)


@given(steps=st.lists(st.tuples(st.integers(0, 4), st.none() | ITEMS), max_size=12))
@settings(deadline=None)
def test_after_any_changes_the_index_equals_one_built_from_scratch(steps):
    records = shop()
    for name, item in steps:
        if item is None:
            records.drop_items(records.numbers_of([f"n{name}"]).values())
        else:
            put(records, {"id": f"n{name}", **item})
    records.connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
    words, vocabulary, _ = before = dumped(records)
    assert [number for number, *_ in words] == sorted(records.numbers_of([f"n{name}" for name in range(5)]).values())
    counts = Counter(word for _, *one in words for word in {ALL_ITEMS, *" ".join(one).split()})
    assert dict(vocabulary) == counts
    assert rebuilt(records) == before


def test_a_rolled_back_transaction_leaves_the_index_unchanged():
    records = titled("red bag")
    before = dumped(records)
    records.connection.execute("BEGIN")
    put(records, {"id": "item 0", "captions": ["blue hat"]})
    assert items(records, "hat") == [1]
    records.connection.execute("ROLLBACK")
    assert dumped(records) == before


def test_replaced_and_deleted_items_are_not_found_by_their_old_words():
    records = titled("red bag", "blue bag")
    put(records, {"id": "item 0", "captions": ["green hat"]})
    assert (items(records, "red"), items(records, "green"), items(records, "bag")) == ([], [1], [2])
    records.drop_items([2])
    assert (items(records, "bag"), items(records, "blue")) == ([], [])


# --- what is found where


def test_names_outweigh_titles_which_outweigh_other_text():
    records = shop(
        {"captions": ["a thing", "for the lamp and the room"]},
        {"captions": ["a lamp", "for the room"]},
        {"captions": ["a thing", "for the room"], "attributes": {"brand": "Lamp"}},
        {"captions": ["a thing", "for the room"], "attributes": {"kind": "lamp"}},
    )
    assert items(records, "lamp") == [3, 2, 4, 1]


def test_nested_attributes_lists_and_naming_numbers_are_indexed_and_urls_are_not():
    records = shop(
        {
            "attributes": {
                "material": {"outer": ["wool", {"trim": "leather"}]},
                "ean": 4006381333931,
                "shoeSize": 43.0,
                "price": 77,
                "new": True,
                "link": "https://shop.example/cotton.jpg",
            }
        }
    )
    for text in ("wool", "leather", "4006381333931", "43"):
        assert items(records, text) == [1]
    for text in ("77", "true", "cotton", "material"):
        assert items(records, text) == []


@pytest.mark.parametrize(
    ("key", "names"),
    [
        *((key, True) for key in ("id", "SKU", "skus", "product_id", "GTIN-13", "ean13", "shoeSize", "brand.name")),
        *((key, False) for key in ("video", "color", "identity", "modeling", "sized", "description", "")),
    ],
)
def test_naming_attributes_are_recognized(key, names):
    assert is_naming_attribute(key) is names


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("鸡丁", "宫保鸡丁"),
        ("丁", "宫保鸡丁"),
        ("牛肉面", "红烧牛肉面"),
        ("连衣裙", "红色的棉质连衣裙"),
        ("好看的红色连衣裙", "红色的棉质连衣裙"),
        ("ワンピース", "赤いワンピース"),
        ("ﾜﾝﾋﾟｰｽ", "赤いワンピース"),
        ("赤", "赤いワンピース"),
        ("傘", "雨の日の傘"),
        ("แมว", "ภาพวาดแมวดำ"),
        ("เสื้อ", "เสื้อสีแดง"),
        ("신발", "편한 신발을 신다"),
        ("किताब", "लाल किताब"),
        ("КНИГА", "новая книга"),
    ],
)
def test_words_of_any_script_rank_their_item_first(query, title):
    titles = sorted({
        "宫保鸡丁", "红烧牛肉面", "红色的棉质连衣裙", "赤いワンピース", "雨の日の傘", "ภาพวาดแมวดำ", "เสื้อสีแดง",
        "편한 신발을 신다", "लाल किताब", "новая книга", "red bag",
    })  # fmt: skip
    assert items(titled(*titles), query, depth=1) == [titles.index(title) + 1]


def test_a_short_run_matches_as_a_phrase_and_by_bigrams_only_where_no_phrase_matches():
    records = titled("牛肉面", "牛肉汤", "汤面")
    assert items(records, "牛肉面") == [1]
    assert items(records, "牛肉饭") == [1, 2]


# --- mistakes

STOCK = [
    "warm hoodie",
    "black umbrella",
    "leather jacket",
    "yoga pants",
    "holding a body",
    "sunglasses",
    "blouse MX-4521",
]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("hodie", "warm hoodie"),
        ("hoodeis", "warm hoodie"),
        ("umbrela", "black umbrella"),
        ("blakc", "black umbrella"),
        ("lback", "black umbrella"),
        ("jackte", "leather jacket"),
        ("lether jaket", "leather jacket"),
        ("sunglases", "sunglasses"),
        ("snuglassse", "sunglasses"),
        ("4512", "blouse MX-4521"),
    ],
)
def test_a_mistyped_word_is_corrected(query, title):
    assert items(titled(*STOCK), query, depth=1) == [STOCK.index(title) + 1]


@pytest.mark.parametrize("query", ["pan", "zzzzzzz", "yo", "QX-9999", ""])
def test_short_and_distant_words_are_not_corrected(query):
    assert items(titled(*STOCK), query) == []


def test_a_code_is_not_corrected_beside_a_known_word():
    records = titled(*STOCK)
    assert items(records, "4512 jacket") == [3]


def test_corrections_are_the_nearest_words_then_the_most_frequent():
    words = {"cart": 1, "card": 3, "care": 2, "carp": 5, "cars": 9}
    assert select_corrections([[], ["cart", "card", "gone", "care", "carp"], ["cars"]], words) == [
        "carp",
        "card",
        "care",
    ]
    assert select_corrections([["gone"], ["cars"]], words) == ["cars"]


def test_new_words_are_suggested_and_deleted_ones_are_not():
    records, search = titled("red umbrella"), WordSearch()
    assert items(records, "umbrela", search=search) == [1]
    put(records, {"id": "new", "captions": ["green pullover"]})
    assert items(records, "pulover", search=search) == [2]
    records.drop_items([1])
    assert items(records, "umbrela", search=search) == []


def test_threads_share_one_word_search(tmp_path):
    path = tmp_path / "words.sqlite"
    writer = sqlite3.connect(path, isolation_level=None)
    schema.create(writer)
    records, search, found = Records(writer, tmp_path), WordSearch(), []
    put(records, *({"captions": [title]} for title in STOCK))

    def ask():
        connection = sqlite3.connect(path)
        found.extend(search.search(connection, "umbrela", depth=1)[0].item for _ in range(30))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert found == [2] * 120


def test_suggestions_are_grouped_by_optimal_string_alignment_distance():
    records = titled("abcdefgh abcdefg abc1 ab ab12345 ab1299 zb12354")
    suggest = SpellingIndex().suggest
    assert suggest("abcdegfh", records.connection) == [[], [], ["abcdefgh"], [], ["abcdefg"], []]
    assert suggest("abcdefg", records.connection)[2] == ["abcdefgh"]
    assert suggest("ab", records.connection) == []
    assert suggest("ab12354", records.connection) == [[], [], ["ab12345"], []]


# --- hostile texts


@given(st.text() | st.text("\"'*^():+-{}ANDORNOTNEAR facts\x00鸡ab1"))
@settings(deadline=None)
def test_no_query_text_is_fts5_syntax(text):
    records = titled(*STOCK, "facts: NEAR the NOT AND OR")
    search = WordSearch()
    search.search(records.connection, text, depth=3)
    search.find_identified(records.connection, text)


@given(st.text(), st.text())
@settings(deadline=None)
def test_every_item_is_found_by_its_id_and_title(name, title):
    name = f"a{name}".encode("utf-8", "ignore").decode()
    title = title.encode("utf-8", "ignore").decode()
    records = shop({"id": "other", "captions": ["something else"]}, {"id": name, "captions": [title]})
    assert 2 in items(records, name)
    if len(normalize_identifier(name)) <= 64:
        assert identified(records, name)[:1] == [2]
    if tokenize(title):
        assert 2 in items(records, title)


def test_a_very_long_query_is_truncated():
    records = titled("red bag")
    assert items(records, "red " + "x" * 1_000_000) == [1]
    assert items(records, " ".join(f"w{number}x" for number in range(10_000)) + " red") == []
    assert items(titled("宫保鸡丁"), "宫保鸡丁" * 1000) == [1]


def test_a_lone_surrogate_is_ignored():
    records = titled("red bag")
    assert items(records, "\ud800red\udfff") == [1]
    assert identified(records, "\ud800 item-0") == [1]


# --- identifiers


def stocked():
    return shop(
        {"id": "mh01-black", "captions": ["black hoodie"], "attributes": {"skus": "MH01-XS-Black|MH01-S-Black, MH01"}},
        {"id": "mh01-gray", "captions": ["gray hoodie"], "attributes": {"sku": ["MH01-XS-Gray", "mh01"]}},
        {"id": "2", "captions": ["pack of 2 shirts"], "attributes": {"gtin": 4006381333931, "brand": "Acme"}},
        {"id": "hoodie", "captions": ["picture of a hoodie"]},
        {"id": "abc", "captions": ["brown bag"]},
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("MH01-S-Black", [1]),
        ("mh01 s black", [1, 2]),  # the whole first, then MH01
        ("mh01sblack", [1]),
        ("ＭＨ０１-xs-GRAY", [2]),
        ("warm MH01-XS-Gray hoodie", [2]),
        ("MH01", [1, 2]),
        ("mh01", [2, 1]),  # spelled so
        ("4006381333931", [3]),
        ("4006-3813-33931", [3]),
        ("2", [3]),
        ("2 hoodies", []),
        ("Acme", []),
        ("hoodie", [4]),
        ("warm hoodie", []),
        ("brown ABC", [5]),
        ("", []),
        ("-", []),
    ],
)
def test_an_identifier_finds_its_items(query, found):
    assert identified(stocked(), query) == found


def test_identified_items_respect_the_filter_and_the_limit():
    records = stocked()
    assert identified(records, "MH01", allowed=np.array([False, False, True, True, True, True])) == [2]
    assert identified(records, "MH01", limit=1) == [1]


def test_a_value_shared_by_many_items_identifies_none():
    records = shop(*({"id": f"n{number}", "attributes": {"category_id": "A77"}} for number in range(MAX_SHARED + 1)))
    assert identified(records, "A77") == []
    assert len(items(records, "A77", depth=100)) == MAX_SHARED + 1
    assert identified(records, "N7") == [8]


@given(
    st.lists(st.from_regex(r"[A-Z]{1,3}[-. /]?[0-9]{1,5}([-_][A-Z]{1,2})?", fullmatch=True), min_size=1, unique=True)
)
@settings(deadline=None)
def test_every_sku_ranks_first_in_any_spelling(skus):
    records = shop(*({"id": f"item {place}", "attributes": {"sku": sku}} for place, sku in enumerate(skus)))
    for place, sku in enumerate(skus, 1):
        for text in (sku, f" {sku.lower()} ", sku.replace("-", " "), sku.replace("/", "").swapcase()):
            found = identified(records, text)
            same = [
                number
                for number, other in enumerate(skus, 1)
                if normalize_identifier(other) == normalize_identifier(sku)
            ]
            assert found[: len(same)] == sorted(same, key=lambda number: (skus[number - 1] != text.strip(), number))
            assert place in found
