"""Exact search equals sorting every score, whatever the blocks, and keeps neither all scores nor all rows in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import assert_nearest, clustered_rows, plain_search, random_rows

from index import exact
from index.errors import SpecError, VectorError
from index.exact import exact_search, filtered_search, is_gathering_cheaper, make_mask, search_blocks
from index.vectors import unit_rows


@st.composite
def searches(draw):
    """Rows of few values, so that many are equal and many scores tie, with queries, k and an allowed set."""
    dimension = draw(st.integers(1, 5))
    values = st.lists(st.integers(-2, 2), min_size=dimension, max_size=dimension).filter(any)
    rows = draw(st.lists(values, max_size=60))
    queries = draw(st.lists(values, max_size=9))
    allowed = draw(st.none() | st.sets(st.integers(0, max(0, len(rows) - 1)), max_size=len(rows)))
    shape = (-1, dimension)
    return (
        unit_rows(np.array(queries, np.float64).reshape(shape)),
        unit_rows(np.array(rows, np.float64).reshape(shape)),
        draw(st.integers(1, 70)),
        None if allowed is None else np.array(sorted(allowed), np.int64),
    )


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Sizes at which even small inputs run through many blocks, with their uneven ends."""
    sizes = {"QUERY_BLOCK": 5, "SCORE_BLOCK": 64, "GATHER_BLOCK": 16, "PAIR_BLOCK": 3, "SINGLE_BLOCK": 20}
    sizes |= {"MANY_QUERIES": 3, "MANY_QUERIES_BLOCK": 64}
    for name, value in sizes.items():
        monkeypatch.setattr(exact, name, value)


@pytest.mark.usefixtures("tiny_blocks")
@given(searches())
@settings(max_examples=300)
def test_exact_search_equals_sorting_all_scores_with_ties_in_id_order(search):
    queries, rows, k, allowed = search
    assert_nearest(exact_search(queries, rows, k, allowed=allowed), queries, rows, k, allowed)


@pytest.mark.usefixtures("tiny_blocks")
@given(searches())
@settings(max_examples=200)
def test_masking_and_gathering_agree_bit_for_bit(search):
    queries, rows, k, allowed = search
    allowed = np.arange(len(rows)) if allowed is None else allowed
    mask = make_mask(allowed, len(rows))
    assert_nearest(search_blocks(queries, rows, k, mask=mask), queries, rows, k, allowed)
    assert_nearest(search_blocks(queries, rows, k, ids=allowed), queries, rows, k, allowed)
    assert_nearest(filtered_search(queries, rows, k, mask=mask), queries, rows, k, allowed)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 200, 257, 600])
def test_any_number_of_queries_finds_the_nearest_of_20000_rows(count):
    rows = clustered_rows(20_000, 24, seed=1)
    assert_nearest(exact_search(random_rows(count, 24, seed=2), rows, 10), random_rows(count, 24, seed=2), rows, 10)


@pytest.mark.parametrize("k", [1, 10, 100, 700, 5000, 9000])
def test_any_k_up_to_all_rows(k):
    rows, queries = random_rows(9000, 8), random_rows(3, 8, seed=2)
    assert_nearest(exact_search(queries, rows, k), queries, rows, k)


def test_rows_in_ascending_score_order_the_worst_case_of_a_running_threshold():
    angles = np.linspace(3, 0, 30_000)
    rows = unit_rows(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    queries = np.array([[1, 0]] * 9, np.float32)
    assert_nearest(exact_search(queries, rows, 10), queries, rows, 10)


def test_equal_scores_return_the_first_ids():
    rows = np.ones((130_000, 1), np.float32)
    found = exact_search(np.ones((8, 1), np.float32), rows, 10)
    np.testing.assert_array_equal(found.ids, np.tile(np.arange(10), (8, 1)))
    np.testing.assert_array_equal(found.scores, 1)


def test_copies_of_a_row_have_equal_scores_and_come_in_id_order():
    rows = random_rows(30_011, 96)
    copies = np.array([5, 4099, 8191, 16_000, 29_999, 30_010])
    rows[copies] = rows[5]
    queries = unit_rows(rows[[5, 5, 5]] + 0.05 * random_rows(3, 96, seed=3))
    found = exact_search(queries, rows, 6)
    np.testing.assert_array_equal(found.ids, np.tile(copies, (3, 1)))
    assert all(len(set(scores.tolist())) == 1 for scores in found.scores)


def test_score_depends_on_its_two_vectors_only(monkeypatch):
    """Not on the filter, the other queries, the block size, or whether one core or two multiplied."""
    rows, queries = random_rows(9000, 64), random_rows(40, 64, seed=2)
    whole = exact_search(queries, rows, 5)
    one = exact_search(queries[7:8], rows, 5)
    few = exact_search(queries, rows, 5, allowed=np.unique(whole.ids))
    monkeypatch.setattr(exact, "SCORE_BLOCK", 40 * 4112)
    other = exact_search(queries, rows, 5)
    np.testing.assert_array_equal(one.scores[0], whole.scores[7])
    np.testing.assert_array_equal(few.scores, whole.scores)
    np.testing.assert_array_equal(other.scores, whole.scores)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("queries", [1, 20])
def test_filtered_search_is_exact_at_every_selectivity(share, queries):
    rows, asked = clustered_rows(20_000, 16), random_rows(queries, 16, seed=2)
    allowed = np.flatnonzero(np.random.default_rng(3).random(20_000) < share)
    assert_nearest(exact_search(asked, rows, 10, allowed=allowed), asked, rows, 10, allowed)


def test_few_allowed_rows_are_gathered_and_many_are_masked():
    assert is_gathering_cheaper(1, 100_000, 10_000)
    assert not is_gathering_cheaper(1, 100_000, 30_000)
    assert is_gathering_cheaper(64, 100_000, 60_000)
    assert not is_gathering_cheaper(256, 100_000, 95_000)


def test_memory_map_is_searched_in_place(tmp_path):
    rows, queries = random_rows(5000, 12), random_rows(4, 12, seed=2)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r").reshape(-1, 12)
    assert_nearest(exact_search(queries, mapped, 10), queries, rows, 10)


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_memory_is_bounded_by_the_block_and_not_by_queries_times_rows(share):
    """512 x 100,000 scores would take 205 MB, the rows in float64 51 MB."""
    rows, queries = random_rows(100_000, 64), random_rows(512, 64, seed=2)
    allowed = np.flatnonzero(np.random.default_rng(3).random(len(rows)) < share)
    tracemalloc.start()
    exact_search(queries, rows, 10, allowed=allowed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_ranking_holds_when_products_round_by_the_whole_margin(monkeypatch):
    """Every product is moved as far as rounding can move it, at random: the nearest stay the nearest."""
    rows = unit_rows(np.array([1, 1, 1, 1]) + 1e-6 * np.random.default_rng(1).standard_normal((4000, 4)))
    queries = random_rows(9, 4, seed=2)
    random = np.random.default_rng(4)

    product = exact._multiply

    def noisy(queries, block, buffer):
        scores = product(queries, block, buffer)
        true = queries.astype(np.float64) @ block.T.astype(np.float64)
        scores[:, : len(block)] = true + random.uniform(-1, 1, true.shape) * exact.bound_rounding(4) * 0.9
        return scores

    monkeypatch.setattr(exact, "_multiply", noisy)
    assert_nearest(exact_search(queries, rows, 10), queries, rows, 10)


@pytest.mark.parametrize(("queries", "rows"), [(0, 5), (3, 0), (0, 0)])
def test_no_queries_or_no_rows_give_an_empty_result(queries, rows):
    found = exact_search(random_rows(5, 3)[:queries], random_rows(5, 3)[:rows], 4)
    assert found.ids.shape == found.scores.shape == (queries, min(4, rows))
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)


def test_no_allowed_row_gives_an_empty_result():
    assert exact_search(random_rows(2, 3), random_rows(5, 3), 4, allowed=np.array([], np.int64)).ids.shape == (2, 0)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k):
    with pytest.raises(SpecError, match=f"k is {k}"):
        exact_search(random_rows(1, 3), random_rows(5, 3), k)


@pytest.mark.parametrize(
    "allowed", [[3, 1], [1, 1], [-1, 2], [2, 5], [[1, 2]], [0.5, 1.5], [True, False, True, True, True]]
)
def test_allowed_must_be_a_sorted_set_of_row_numbers(allowed):
    with pytest.raises(SpecError, match="allowed"):
        exact_search(random_rows(1, 3), random_rows(5, 3), 2, allowed=np.array(allowed))


def test_queries_of_another_dimension_are_refused():
    with pytest.raises(VectorError, match="dimension 4, and 3 is needed"):
        exact_search(random_rows(1, 4), random_rows(5, 3), 2)


def test_oracle_ranks_by_cosine():
    ids, scores = plain_search(unit_rows([[1, 0]]), unit_rows([[0, 1], [1, 0], [1, 1]]), 3)
    assert ids.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5, 0]], atol=1e-7)
