"""Every kind of index against plain numpy, through adds, removes, saves and loads, with and without an allowed set."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import (
    SMALL,
    assert_nearest,
    assert_true_scores,
    build,
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
    random_rows,
    recall,
    texts_for,
)

from index import vector_index
from index.errors import SpecError, VectorError
from index.kinds import KINDS
from index.spec import IndexSpec
from index.vector_index import VectorIndex
from index.vectors import unit_rows


@pytest.fixture(params=SMALL.values(), ids=SMALL)
def spec(request):
    return request.param


@pytest.fixture
def index_at_once(monkeypatch):
    """New rows are indexed at once, instead of leaving 4,096 to exact search."""
    monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 0)


# Results


def test_full_effort_finds_the_nearest_for_queries_unlike_the_rows(spec):
    rows = clustered_rows(5000, 32)
    queries = texts_for(rows, 100)
    found = build(rows, spec=replace(spec, codes=8)).search(queries, 10, effort=1)
    assert_true_scores(found, queries, rows)
    if spec.kind in {"exact", "ivf"}:
        assert_nearest(found, queries, rows, 10)
    else:
        assert recall(found, queries, rows, 10) >= (0.99 if spec.kind == "hnsw" else 0.97)


@pytest.mark.faiss
def test_default_hnsw_has_recall_99_percent_at_full_effort_and_97_by_default():
    rows = clustered_rows(8000, 48, clusters=200)
    queries = texts_for(rows, 200)
    index = build(rows, spec="hnsw")
    assert recall(index.search(queries, 10, effort=1), queries, rows, 10) >= 0.99
    assert recall(index.search(queries, 10), queries, rows, 10) >= 0.97


def test_low_effort_still_returns_k_live_rows_with_exact_scores(spec):
    rows = clustered_rows(3000, 16)
    queries = texts_for(rows, 20)
    index = build(rows, spec=spec)
    index.remove(np.arange(0, 3000, 10))
    found = index.search(queries, 50, effort=0)
    assert found.ids.shape == (20, 50)
    assert_true_scores(found, queries, rows)
    assert not np.any(found.ids % 10 == 0)
    assert all(len(set(ids)) == 50 for ids in found.ids.tolist())
    assert np.all(np.diff(found.scores) <= 0)


@pytest.mark.faiss
def test_queries_with_too_few_candidates_are_searched_exactly():
    """Effort 0 reads one list of 8, which never holds 1,500 of 3,000 rows."""
    rows = clustered_rows(3000, 16)
    found = build(rows, spec=SMALL["ivf"]).search(rows[:5], 1500, effort=0)
    assert_nearest(found, rows[:5], rows, 1500)


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5, 1.0])
def test_allowed_set_is_searched_exactly_whatever_the_kind_and_effort(spec, share):
    rows = clustered_rows(4000, 16)
    queries = texts_for(rows, 10)
    index = build(rows, spec=spec)
    index.remove(np.arange(100))
    mask = np.random.default_rng(5).random(4000) < share
    live = np.flatnonzero(mask[100:]) + 100
    assert_nearest(index.search(queries, 10, allowed=mask, effort=0), queries, rows, 10, live)
    shuffled = np.random.default_rng(6).permutation(np.tile(np.flatnonzero(mask), 2))
    assert_nearest(index.search(queries, 10, allowed=shuffled), queries, rows, 10, live)


def test_no_allowed_row_gives_an_empty_result(spec):
    index = build(clustered_rows(500, 8), spec=spec)
    assert index.search(random_rows(3, 8), 5, allowed=np.array([], np.int64)).ids.shape == (3, 0)
    assert index.search(random_rows(3, 8), 5, allowed=np.zeros(500, np.bool_)).ids.shape == (3, 0)


def test_slots_added_after_a_mask_are_not_allowed():
    rows = random_rows(10, 3)
    index = build(rows, spec="exact")
    mask = np.ones(10, np.bool_)
    index.add(rows[:1])
    assert_nearest(index.search(rows[:2], 20, allowed=mask), rows[:2], rows, 20)


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_copies_of_a_row_come_in_id_order_with_one_score(kind):
    """A hundred copies, of which the first ten are the result: FAISS would return any ten."""
    rows = clustered_rows(2000, 16)
    copies = np.sort(np.random.default_rng(2).choice(2000, 100, replace=False))
    rows[copies] = rows[copies[0]]
    found = build(rows, spec=SMALL[kind]).search(rows[copies[:1]], 10, effort=1)
    np.testing.assert_array_equal(found.ids, [copies[:10]])
    assert len(set(found.scores[0].tolist())) == 1


@pytest.mark.faiss
def test_rows_that_tie_by_rounding_come_in_id_order_from_ivf_too():
    """The same numbers in another order: FAISS's float32 sums differ in their last bits, the true scores do not."""
    random = np.random.default_rng(4)
    numbers = random.standard_normal(24)
    rows = unit_rows(np.stack([random.permutation(numbers) for _ in range(400)]))
    query = unit_rows(np.ones((1, 24)))
    found = build(rows, spec=SMALL["ivf"]).search(query, 10, effort=1)
    assert_nearest(found, query, rows, 10)
    assert len(set(found.scores[0].tolist())) < 3


@pytest.mark.faiss
def test_equal_scores_from_hnsw_or_ivfpq_come_in_id_order():
    rows = clustered_rows(500, 16)
    rows[[400, 17, 250]] = rows[17]
    for kind in ("hnsw", "ivfpq"):
        assert build(rows, spec=SMALL[kind]).search(rows[17:18], 3, effort=1).ids.tolist() == [[17, 250, 400]]


# Few rows, one dimension, nothing there


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 30, 300])
@pytest.mark.parametrize("dimension", [1, 3, 8])
def test_every_kind_finds_the_nearest_of_any_number_of_rows(kind, count, dimension):
    """Also where there are fewer rows than lists or codes need to be trained, and where k is beyond them."""
    rows = random_rows(count, dimension) if count else np.empty((0, dimension), np.float32)
    queries = random_rows(4, dimension, seed=2)
    sizes = IndexSpec(kind, code_bits=4 if kind == "ivfpq" else 8)
    assert_nearest(build(rows, spec=sizes).search(queries, 400, effort=1), queries, rows, 400)


def test_all_dead_give_an_empty_result_and_a_new_row_is_found(spec, index_at_once):  # noqa: ARG001 - a fixture
    rows = clustered_rows(300, 8)
    index = build(rows, spec=spec)
    index.remove(np.arange(300))
    assert len(index) == 0
    assert index.search(rows[:2], 5).ids.shape == (2, 0)
    assert index.add(rows[7:8]).tolist() == [300]
    assert index.search(rows[:2], 5).ids.tolist() == [[300], [300]]


def test_no_queries_give_an_empty_result(spec):
    index = build(clustered_rows(300, 8), spec=spec)
    assert index.search(np.empty((0, 8), np.float32), 5).ids.shape == (0, 5)


# The door


@pytest.mark.parametrize(
    ("queries", "error"),
    [
        (np.ones((2, 8), np.float32), "has length"),
        (unit_rows(np.ones((2, 7))), "dimension 7, and 8"),
        (np.full((1, 8), np.nan, np.float32), "has length nan"),
        (np.ones(8, np.float32), "unit_rows"),
        (np.eye(8), "float64"),
    ],
)
def test_queries_must_be_unit_rows_of_the_dimension(queries, error, spec):
    index = build(clustered_rows(300, 8), spec=spec)
    with pytest.raises(VectorError, match=error):
        index.search(queries, 3)
    with pytest.raises(VectorError, match=error):
        index.add(queries)


def test_rows_with_a_nan_are_refused():
    rows = clustered_rows(300, 8)
    rows[200] = np.nan
    with pytest.raises(VectorError, match="Row 200 has length nan"):
        build(rows, spec="hnsw")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 3, "effort": 1.5}, "effort is 1.5"),
        ({"k": 3, "allowed": np.array([300])}, "from 300 to 300"),
        ({"k": 3, "allowed": np.ones(301, np.bool_)}, "301"),
    ],
)
def test_impossible_searches_are_refused_with_their_value(asked, named):
    index = build(clustered_rows(300, 8), spec="exact")
    with pytest.raises(SpecError, match=named):
        index.search(random_rows(1, 8), **asked)


@pytest.mark.faiss
def test_effort_is_checked_and_saved(tmp_path):
    rows = clustered_rows(300, 8)
    index = build(rows, spec=IndexSpec("ivf", effort=0.25))
    index.effort = 0.5
    index.save(tmp_path / "index")
    assert VectorIndex.load(tmp_path / "index", rows).effort == index.effort == index.spec.effort == 0.5
    with pytest.raises(SpecError, match="effort is 2"):
        index.effort = 2


def test_auto_says_what_it_chose_and_why():
    assert build(clustered_rows(300, 8)).spec.reason.startswith("reading all 300 rows of dimension 8")
