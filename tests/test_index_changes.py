"""Adds, removes, growth, and threads: after any sequence of changes every kind finds what plain numpy does."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    SMALL,
    assert_nearest,
    assert_true_scores,
    build,
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
    plain_search,
    random_rows,
    recall,
    texts_for,
)

from index import vector_index
from index.errors import SpecError, VectorError
from index.kinds import KINDS, faiss_index
from index.kinds.ivf import Ivf
from index.vector_index import VectorIndex
from index.vectors import unit_rows


@pytest.fixture(params=SMALL.values(), ids=SMALL)
def spec(request):
    return request.param


@pytest.fixture
def index_at_once(monkeypatch):
    """New rows are indexed at once, instead of leaving 4,096 to exact search."""
    monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 0)


def test_ids_are_slots_that_never_move_and_are_never_reused(spec, index_at_once):  # noqa: ARG001 - a fixture
    rows = clustered_rows(900, 8)
    index = build(rows[:600], spec=spec)
    index.remove(np.arange(0, 600, 2))  # half of them: the candidate index is rebuilt
    assert index.add(rows[600:]).tolist() == list(range(600, 900))
    assert (index.slots, len(index)) == (900, 600)
    np.testing.assert_array_equal(index.dead, np.arange(0, 600, 2))
    live = np.setdiff1d(np.arange(900), index.dead)
    assert_nearest(index.search(rows[::50], 5, effort=1), rows[::50], rows, 5, live)


@pytest.mark.faiss
def test_candidate_index_is_rebuilt_above_a_fifth_dead_and_not_before():
    index = build(clustered_rows(1000, 8), spec=SMALL["ivf"])
    before = index._snapshot.candidate_index
    index.remove(np.arange(200))
    assert index._snapshot.candidate_index is before
    index.remove(np.array([200]))
    assert index._snapshot.candidate_index is not before
    np.testing.assert_array_equal(index._snapshot.candidate_index.slots, np.arange(201, 1000))


def test_ids_may_be_removed_twice_and_unknown_ones_are_refused(spec):
    index = build(clustered_rows(100, 8), spec=spec)
    index.remove(np.array([3, 3, 5]))
    index.remove(np.array([5]))
    assert index.dead.tolist() == [3, 5]
    for wrong in ([-1], [100], [0.5], [[1]]):
        with pytest.raises(SpecError, match="slots"):
            index.remove(np.array(wrong))


def test_rows_dead_at_building_are_never_returned(spec):
    rows = clustered_rows(500, 8)
    index = build(rows, spec=spec, dead=np.arange(100))
    assert (len(index), index.slots) == (400, 500)
    assert_nearest(index.search(rows[:9], 5, effort=1), rows[:9], rows, 5, np.arange(100, 500))


def test_new_rows_are_found_before_and_after_they_are_indexed(spec, monkeypatch):
    rows = clustered_rows(1200, 8)
    monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 500)
    monkeypatch.setattr(faiss_index, "CHUNK", 64)
    index = build(rows[:400], spec=spec)
    for start in range(400, 1200, 200):
        index.add(rows[start : start + 200])
        known = rows[: start + 200]
        assert_nearest(index.search(rows[::40], 5, effort=1), rows[::40], known, 5)
    assert spec.kind == "exact" or index._snapshot.covered == 1000  # 400, then 600 at once; the last 200 wait


@pytest.mark.faiss
def test_centroids_are_retrained_when_the_rows_outgrow_them(index_at_once):  # noqa: ARG001 - a fixture
    rows = clustered_rows(2000, 8)
    index = build(rows[:100], spec="ivf")
    assert index.spec.lists == 2
    index.add(rows[100:400])
    assert index.spec.lists == 2
    index.add(rows[400:])
    assert index.spec.lists == 51
    assert_nearest(index.search(rows[:20], 5, effort=1), rows[:20], rows, 5)


def test_memory_map_is_extended_without_a_copy(tmp_path, spec):
    rows = clustered_rows(600, 8)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r").reshape(-1, 8)
    index = build(mapped[:400], spec=spec)
    index.extend(mapped)
    assert np.shares_memory(index._snapshot.rows, mapped)
    assert_nearest(index.search(rows[::30], 5, effort=1), rows[::30], rows, 5)


def test_add_copies_the_matrix_of_the_caller_once():
    rows = clustered_rows(100, 8)
    kept = rows[:50].copy()
    index = build(rows[:50], spec="exact")
    index.add(rows[90:91])
    buffer = index._buffer
    index.add(rows[91:92])
    assert index._buffer is buffer
    np.testing.assert_array_equal(rows[:50], kept)
    np.testing.assert_array_equal(index._snapshot.rows, np.vstack([kept, rows[90:92]]))


def test_extending_with_other_or_fewer_rows_is_refused():
    rows = clustered_rows(100, 8)
    index = build(rows[:50], spec="exact")
    for wrong in (rows[:49], rows[1:], np.vstack([rows[:20], rows[:60]])):
        with pytest.raises(VectorError, match="do not start with the 50 indexed"):
            index.extend(wrong)
    with pytest.raises(VectorError, match="has length"):
        index.extend(np.vstack([rows[:50], np.zeros((1, 8), np.float32)]))
    assert index.slots == 50


def test_update_is_searched_at_once_and_indexed_by_maintain(spec, monkeypatch):
    rows = clustered_rows(900, 8)
    monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 300)
    index = build(rows[:500], spec=spec)
    before = index._snapshot.candidate_index
    index.update(rows, dead=np.arange(120))
    assert (index._snapshot.candidate_index, index.needs_maintenance) == (before, True)
    assert_nearest(index.search(rows[::30], 5, effort=1), rows[::30], rows, 5, np.arange(120, 900))
    index.maintain()
    assert not index.needs_maintenance
    assert_nearest(index.search(rows[::30], 5, effort=1), rows[::30], rows, 5, np.arange(120, 900))


@pytest.mark.faiss
def test_changes_during_a_rebuild_are_in_the_results_of_the_new_index(monkeypatch):
    """Changes do not wait for the build."""
    rows = clustered_rows(900, 8)
    index = build(rows[:600], spec=SMALL["ivf"])
    index.update(rows[:600], dead=np.arange(200))

    build_ivf = Ivf.build

    def build_late(*args, **options):
        index.update(rows, dead=np.arange(300))
        assert_nearest(index.search(rows[::30], 5, effort=1), rows[::30], rows, 5, np.arange(300, 900))
        return build_ivf(*args, **options)

    monkeypatch.setattr(Ivf, "build", build_late)
    index.maintain()
    assert index._snapshot.candidate_index.slots.tolist() == list(range(200, 600))
    assert_nearest(index.search(rows[::30], 5, effort=1), rows[::30], rows, 5, np.arange(300, 900))


# Everything at random


@st.composite
def changes(draw):
    """A sequence of changes with the numbers that they need."""
    kinds = ["add", "extend", "remove", "reload", "search", "filter"]
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 10**6)), min_size=1, max_size=12))


@pytest.mark.usefixtures("index_at_once")
@pytest.mark.parametrize("kind", KINDS)
@given(first=st.integers(0, 80), changes=changes())
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_changes_finds_what_plain_numpy_does(kind, first, changes, tmp_path_factory):
    """At full effort; half of the rows are copies of others, so that scores tie. A graph may miss one in a hundred."""
    rows = clustered_rows(600, 4, clusters=5)
    rows[1::2] = rows[::-2]
    path = tmp_path_factory.getbasetemp() / kind
    index, live = build(rows[:first], spec=SMALL[kind]), np.ones(first, np.bool_)
    for change, seed in [*changes, ("search", 0), ("filter", 1)]:
        random = np.random.default_rng(seed)
        more = rows[len(live) : len(live) + seed % 60]
        if change in {"add", "extend"}:
            if change == "add":
                assert index.add(more).tolist() == list(range(len(live), len(live) + len(more)))
            else:
                index.extend(rows[: len(live) + len(more)])
            live = np.append(live, np.ones(len(more), np.bool_))
        elif change == "remove":
            gone = random.permutation(len(live))[: seed % 40]
            index.remove(gone)
            live[gone] = False
        elif change == "reload":
            index.save(path)
            index = VectorIndex.load(path, rows[: len(live)], device="cpu")
        else:
            check(index, rows[: len(live)], live, random if change == "filter" else None)
        assert (len(index), index.slots) == (live.sum(), len(live))


def check(index, rows, live, random):
    queries, allowed, k = texts_for(clustered_rows(50, 4), 3), live, 7
    if random is not None:
        mask = random.random(len(live)) < random.random()
        allowed = live & mask
        assert_nearest(index.search(queries, k, allowed=mask), queries, rows, k, np.flatnonzero(allowed))
        return
    found = index.search(queries, k, effort=1)
    if index.spec.create_kind().scores_every_row(1):
        assert_nearest(found, queries, rows, k, np.flatnonzero(live))
    elif index.spec.kind == "ivfpq":  # its depth of 64k is all rows; which of equal rows is returned is open
        np.testing.assert_array_equal(found.scores, plain_search(queries, rows, k, np.flatnonzero(live))[1])
    else:
        assert_true_scores(found, queries, rows)
        assert found.ids.shape == (3, min(k, live.sum()))
        assert np.all(live[found.ids])
        assert recall(found, queries, rows, k, np.flatnonzero(live)) >= 0.9 if live.any() else True


# Threads


def test_search_sees_the_rows_of_the_moment_at_which_it_began(spec, index_at_once):  # noqa: ARG001 - a fixture
    rows = clustered_rows(600, 8)
    index = build(rows[:300], spec=spec)
    first = index._snapshot
    index.add(rows[300:])
    second = index._snapshot
    index.remove(np.arange(40))
    assert_nearest(first.search(rows[::20], 5, 1.0), rows[::20], rows[:300], 5)
    assert_nearest(second.search(rows[::20], 5, 1.0), rows[::20], rows, 5)


def test_threads_search_while_another_adds_and_removes(spec, monkeypatch):
    """Every result is full, with exact scores, of rows that were there; the searched cluster is never changed."""
    monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 50)
    monkeypatch.setattr(faiss_index, "CHUNK", 20)
    rows = unit_rows(np.abs(random_rows(2000, 8)))
    rows[50:] *= -1  # the first 50 are on the other side of the sphere
    index = build(rows[:500], spec=spec)
    failures, done = [], threading.Event()

    def search():
        while not done.is_set():
            found = index.search(rows[:3], 10, effort=1)
            try:
                assert_nearest(found, rows[:3], rows[:50], 10)
            except AssertionError as error:
                failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(500, 2000, 100):
        index.add(rows[start : start + 100])
        index.remove(np.arange(start - 400, start - 350))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
