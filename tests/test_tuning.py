"""Recall is the fraction of the true nearest; tuning finds the least effort that reaches it, or says that none does."""

from types import SimpleNamespace

import numpy as np
import pytest
from oracles import (
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
    plain_search,
    texts_for,
)

from index.errors import SpecError
from index.spec import IndexSpec
from index.tuning import recall_at_k, tune_effort
from index.vector_index import VectorIndex
from index.vectors import Neighbors, unit_rows


@pytest.fixture(scope="module")
def rows():
    return clustered_rows(4000, 16)


@pytest.fixture(scope="module")
def index(rows):
    return VectorIndex.build(rows, spec=IndexSpec("ivf", lists=64), device="cpu")


class FakeIndex:
    """An index of known recall: of ten true results a search finds ten times `reach(effort)`."""

    def __init__(self, reach):
        self.reach = reach

    def search_exactly(self, queries, k):
        """Return ten ids with scores from 1 to one half."""
        return Neighbors(np.tile(np.arange(k), (len(queries), 1)), np.linspace([1.0] * len(queries), 0.5, k, axis=1))

    def search(self, queries, k, *, effort):
        """Return as many of these as the effort reaches, then worse ones."""
        found = self.search_exactly(queries, k)
        found.scores[:, round(k * self.reach(effort)) :] = 0.1
        return found

    def __len__(self):
        return 100


@pytest.mark.faiss
def test_recall_is_the_fraction_of_the_true_nearest(index, rows):
    queries = texts_for(rows, 100)
    true, _ = plain_search(queries, rows, 10)
    found = index.search(queries, 10, effort=0.3).ids
    by_hand = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, true, strict=True)])
    assert 0.3 < by_hand < 1
    assert recall_at_k(index, queries, 10, effort=0.3) == pytest.approx(by_hand)


def test_exact_search_has_recall_1(rows):
    assert recall_at_k(VectorIndex.build(rows, spec="exact"), texts_for(rows, 20), 10) == 1


@pytest.mark.faiss
def test_equal_rows_count_for_each_other():
    """Whichever of the eight copies is found, it is as near as the true one."""
    copies = unit_rows(np.repeat(np.eye(4), 8, axis=0))
    index = VectorIndex.build(copies, spec="hnsw", device="cpu")
    assert recall_at_k(index, copies[:1], 3, effort=1) == 1


def test_dead_rows_do_not_count(rows):
    index = VectorIndex.build(rows, spec="exact", dead=np.arange(3990))
    assert recall_at_k(index, rows[:5], 100) == 1


@pytest.mark.faiss
def test_recall_uses_the_effort_of_the_index_by_default(index, rows):
    queries = texts_for(rows, 50)
    index.effort = 0.3
    assert recall_at_k(index, queries, 10) == recall_at_k(index, queries, 10, effort=0.3)


@pytest.mark.parametrize(("asked", "least"), [(0.0, 0.0), (0.4, 0.35), (0.8, 0.75), (1.0, 0.95)])
def test_least_effort_is_found_within_a_128th(asked, least):
    """This index finds round(10 x effort) of ten."""
    tuned = tune_effort(FakeIndex(lambda effort: effort), np.zeros((3, 2)), 10, recall=asked)
    assert tuned.reached
    assert least <= tuned.effort <= least + 2 / 128
    assert tuned.recall >= asked


@pytest.mark.faiss
def test_tuned_effort_reaches_the_recall_and_a_little_less_does_not(index, rows):
    queries = texts_for(rows, 200)
    tuned = tune_effort(index, queries, 10, recall=0.9)
    assert tuned.recall == recall_at_k(index, queries, 10, effort=tuned.effort) >= 0.9
    assert recall_at_k(index, queries, 10, effort=tuned.effort - 1 / 64) < 0.9


def test_unreachable_recall_is_reported_with_the_recall_of_full_effort():
    tuned = tune_effort(FakeIndex(lambda effort: effort * 0.7), np.zeros((3, 2)), 10, recall=0.95)
    assert (tuned.reached, tuned.effort, tuned.recall) == (False, 1.0, pytest.approx(0.7))


@pytest.mark.parametrize("asked", [-0.1, 1.1, float("nan")])
def test_recall_outside_0_to_1_is_refused(asked):
    with pytest.raises(SpecError, match="recall is"):
        tune_effort(SimpleNamespace(), np.zeros((1, 2)), 10, recall=asked)


@pytest.mark.faiss
def test_recall_without_queries_or_rows_is_refused(index, rows):
    with pytest.raises(SpecError, match="0 queries over 4000 rows"):
        recall_at_k(index, rows[:0], 10)
    with pytest.raises(SpecError, match="1 queries over 0 rows"):
        recall_at_k(VectorIndex.build(rows[:0], spec="ivf", device="cpu"), rows[:1], 10)
