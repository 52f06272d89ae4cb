"""Hybrid search: reciprocal ranks that add up, identifiers first, filters that hold in both parts."""

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from index.vectors import unit_rows
from retrieval.catalog import Catalog
from retrieval.errors import QueryError
from retrieval.filters import parse_filter
from retrieval.filters.column_store import ColumnStore
from retrieval.words.search import WordSearch

WORDS = ("red", "blue", "warm", "cold", "hat", "coat", "灰色", "外套")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Eighty items of random words and random vectors, each with a SKU."""
    generator = np.random.default_rng(5)
    with Catalog.open(tmp_path_factory.mktemp("hybrid") / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert(
            {
                "id": f"item {n}",
                "image_vectors": unit_rows(generator.normal(size=(2, 24))),
                "captions": [" ".join(generator.choice(WORDS, generator.integers(1, 5)))],
                "caption_vectors": unit_rows(generator.normal(size=(1, 24))),
                "attributes": {"n": n, "sku": f"AB-{n:03d}"},
            }
            for n in range(80)
        )
        yield catalog


def best_coverage(shop, text, where):
    """The square of the best coverage of the text, as search by words measures it."""
    with shop._database.reading() as records:
        allowed = ColumnStore().mask(parse_filter(where), records.connection)
        found = WordSearch().search(records.connection, text, depth=80, allowed=allowed)
    return max((one.coverage for one in found), default=0) ** 2


texts = st.lists(st.sampled_from([*WORDS, "AB-007", "unknown"]), min_size=1, max_size=3).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 80), st.sampled_from([0.2, 1.0, 5.0]))
def test_hybrid_score_is_the_sum_of_reciprocal_ranks_of_its_parts_under_any_filter(shop, text, least, weight):
    where = {"n": {"$gte": least}}
    parts = {
        mode: [hit.id for hit in shop.search(text, mode=mode, k=80, where=where, target="items")]
        for mode in ("words", "vectors")
    }
    names = {f"item {number}" for number in range(least, 80) if f"AB-{number:03d}" in text}
    hits = shop.search(text, mode="hybrid", k=80, where=where, weights={"words": weight})
    fit = best_coverage(shop, text, where)
    assert hits.total == len(hits) == len(parts["vectors"]) == 80 - least
    for hit in hits:
        ranks = {mode: found.index(hit.id) + 1 for mode, found in parts.items() if hit.id in found}
        if not names:  # where there are some, they come before all that has the words
            assert hit.ranks == ranks
            worth = hit.score - 1 / (10 + ranks["vectors"])
            assert worth == pytest.approx(weight * 8 * fit / (10 + ranks["words"]) if "words" in ranks else 0)
        assert hit.ranks["vectors"] == ranks["vectors"]
        assert ("name" in hit.ranks) == (hit.id in names)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.id for hit in hits[: len(names)]} == names


def test_item_whose_identifier_is_typed_comes_first_in_any_spelling(shop):
    for number in range(80):
        for spelled in (f"AB-{number:03d}", f"ab {number:03d}", f"red hat ab{number:03d}"):
            for mode in ("words", "hybrid"):
                if (spelled.startswith("ab ")) or mode == "hybrid" or " " not in spelled:
                    assert shop.search(spelled, mode=mode, k=1)[0].id == f"item {number}", (spelled, mode)


def test_search_by_words_needs_no_encoder_and_counts_items_with_the_words(shop):
    shop.encoder.texts.clear()
    hits = shop.search("灰色外套", mode="words", k=100, facets={"n": 1})
    assert shop.encoder.texts == []
    having = [hit for hit in shop.search(where={}, k=80) if "灰色" in hit.caption or "外套" in hit.caption]
    assert hits.total == len(hits) == len(having)
    assert hits.facets["n"].other + len(hits.facets["n"].values) == len(having)
    assert "灰色 外套" in hits[0].caption or "灰色" in hits[0].caption


def test_hybrid_search_of_a_mix_excludes_the_liked_item_and_other_modes_refuse_it(shop):
    hits = shop.search("red hat", like="item 3", minus="blue", mode="hybrid", k=80)
    assert "item 3" not in {hit.id for hit in hits}
    assert hits.total == 79
    with pytest.raises(QueryError, match="takes a text alone"):
        shop.search("red", minus="blue", mode="words")
    with pytest.raises(QueryError, match="Words rank items"):
        shop.search("red", mode="hybrid", target="captions")
    with pytest.raises(QueryError, match="weight of words must be a positive number"):
        shop.search("red", mode="hybrid", weights={"words": 0})
    with pytest.raises(QueryError, match="'words', which the query does not have"):
        shop.search("red", mode="vectors", weights={"words": 2})


def test_floor_applies_to_the_cosine_and_keeps_items_found_by_words(shop):
    everything = shop.search("red hat", mode="hybrid", k=80)
    hits = shop.search("red hat", mode="hybrid", k=80, floor=0.2)
    near = {hit.id for hit in shop.search("red hat", k=80, floor=0.2, target="items")}
    worded = {hit.id for hit in shop.search("red hat", mode="words", k=80)}
    assert {hit.id for hit in hits} == near | worded
    assert len(hits) == hits.total < len(everything)


@pytest.mark.parametrize(
    "asked", [{"mode": "words"}, {"mode": "hybrid", "floor": 0.2, "target": "images"}, {"mode": "words", "group": "n"}]
)
@pytest.mark.parametrize("where", [None, {"n": {"$lt": 50}}])
def test_totals_and_facets_by_words_do_not_depend_on_the_window(shop, monkeypatch, asked, where):
    """Also where more items have the words than the window holds."""
    every = shop.search("red hat", k=80, where=where, facets=["n"], **asked)
    assert every.total == len(every)
    monkeypatch.setattr("retrieval.catalog.search.single.WINDOW", 5)
    few = shop.search("red hat", k=2, where=where, facets=["n"], **asked)
    assert (few.total, few.facets) == (every.total, every.facets)


def test_captions_like_an_item_without_captions_are_counted(tmp_path):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": name, "image_vectors": [[1.0, 0.0]], "attributes": {"name": name}} for name in "ab"])
        hits = catalog.search(like="a", target="captions", facets=["name"])
        assert (list(hits), hits.total, hits.facets["name"].values) == ([], 0, ())
        told = {"id": "c", "captions": ["c"], "caption_vectors": [[0.0, 1.0]], "attributes": {"name": "c"}}
        catalog.upsert([{**told, "image_vectors": [[1.0, 0.0]]}])
        hits = catalog.search(like="a", target="captions", facets=["name"])
        assert ([hit.id for hit in hits], hits.total, hits.facets["name"].values) == (["c"], 1, (("c", 1),))
