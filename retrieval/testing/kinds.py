"""The contract of an index kind, against exact search."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy import testing

from index.candidates import IndexKind
from index.errors import DeviceError, SpecError
from index.exact import exact_search, score_pairs
from index.spec import IndexSpec
from index.vector_index import MAX_UNINDEXED, VectorIndex
from index.vectors import Neighbors, Rows, unit_rows

DIMENSION = 16
K = 10


def check_index_kind(spec: IndexSpec, *, min_recall: float | None = None) -> None:
    """Build an index of this kind, then search, filter, shrink, save, load and grow it, and search it on threads.

    Args:
        spec: Kind and sizes; they must suit 1,000 rows of dimension 16.
        min_recall: Least recall@10 at full effort; at 1 the results must be identical to exact search, ties included.
            Where None it is 1 for a kind that `scores_every_row` at full effort, and 0.95 for others.

    A DeviceError, as `build` must raise it, where the kind's `engine_problem` says that its engine is not installed:
    then nothing can be tested.
    """
    rows = _draw_rows(1000)
    rows[500:520] = rows[7]  # ties
    kind = spec.create_kind().choose_sizes(len(rows), DIMENSION)
    if kind.engine_problem():
        with testing.assert_raises(DeviceError):
            kind.build(rows, np.arange(len(rows)), device="cpu")
        raise DeviceError(kind.engine_problem())
    min_recall = min_recall or (1.0 if kind.scores_every_row(1.0) else 0.95)
    _check_engine(kind, rows)
    index = VectorIndex.build(rows, spec=spec, device="cpu")
    _check_search(index, rows, np.arange(len(rows)), min_recall=min_recall)

    live = np.arange(150, len(rows))  # below a fifth: the candidate index still holds the removed rows
    index.remove(np.arange(150))
    _check_search(index, rows, live, min_recall=min_recall)

    with TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        loaded = VectorIndex.load(Path(folder) / "index", rows, device="cpu")
        testing.assert_equal(loaded.spec, index.spec)
        one, other = (each.search(rows[::50], K, effort=0.0) for each in (index, loaded))
        testing.assert_array_equal(one.ids, other.ids)
        rows = np.concatenate([rows, _draw_rows(MAX_UNINDEXED + 1, seed=1)])
        loaded.extend(rows)
        testing.assert_equal(loaded.needs_maintenance, False)  # noqa: FBT003
        _check_search(loaded, rows, np.arange(150, len(rows)), min_recall=min_recall)

    loaded.remove(np.arange(2000))  # above a fifth: it is built again
    _check_search(loaded, rows, np.arange(2000, len(rows)), min_recall=min_recall)
    few = VectorIndex.build(rows[:3], spec=spec, device="cpu")
    _check_search(few, rows[:3], np.arange(3), min_recall=1.0)
    with testing.assert_raises(SpecError):
        index.search(rows[:1], K, effort=1.5)


def _check_engine(kind: IndexKind, rows: Rows) -> None:
    """Check the engine alone: its size, no slots, foreign bytes behind its own, and searches while it grows."""
    slots, first, queries = np.delete(np.arange(len(rows)), 7), len(rows) // 2, rows[:20]
    empty, index = (kind.build(rows, part, device="cpu") for part in (slots[:0], slots[:first]))
    if empty is not None:
        testing.assert_array_less(empty.candidates(queries, K, 1.0), 0)
    if index is None:
        return
    with ThreadPoolExecutor() as pool:
        searches = [pool.submit(index.candidates, queries, K, 1.0) for _ in range(20)]
        index.add(rows, slots[first:])
        testing.assert_array_equal([np.isin(one.result(), [-1, *slots]).all() for one in searches], [True] * 20)
    testing.assert_array_equal(index.slots, slots)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save(path)
        real, estimate = path.stat().st_size, kind.estimate_bytes(len(slots), DIMENSION, device="cpu")
        testing.assert_allclose(estimate, real + slots.nbytes, rtol=0.1)
        path.write_bytes(path.read_bytes() + b"slots and footer" * 100)
        loaded = kind.load(path, slots, dimension=DIMENSION, trained=index.trained, device="cpu")
        testing.assert_array_equal(loaded.candidates(queries, K, 1.0), index.candidates(queries, K, 1.0))


def _check_search(index: VectorIndex, rows: Rows, live: np.ndarray, *, min_recall: float) -> None:
    """Compare searches of 20 rows and of 20 queries that are unlike the rows with exact search."""
    queries = np.concatenate([rows[live][:: -(-len(live) // 20)], _draw_rows(20, seed=2)])
    allowed = live[::3]
    filtered, expected = index.search(queries, K, allowed=allowed), exact_search(queries, rows, K, allowed=allowed)
    testing.assert_array_equal(filtered.ids, expected.ids)
    testing.assert_array_equal(filtered.scores, expected.scores)
    for effort in (0.0, 0.5, 1.0):
        _check_neighbors(index.search(queries, K, effort=effort), queries, rows, live=live)
    found, expected = index.search(queries, K, effort=1.0), exact_search(queries, rows, K, allowed=live)
    if min_recall == 1:
        testing.assert_array_equal(found.ids, expected.ids)
    recall = np.mean(found.scores >= expected.scores[:, -1:])
    testing.assert_array_less(min_recall - 1e-9, recall)


def _check_neighbors(neighbors: Neighbors, queries: Rows, rows: Rows, *, live: np.ndarray) -> None:
    """Check what holds at any effort: full, live, distinct, with exact scores, best first, ties in id order."""
    ids, scores = neighbors.ids, neighbors.scores
    testing.assert_equal(ids.shape, (len(queries), min(K, len(live))))
    testing.assert_array_equal(np.isin(ids, live), np.ones_like(ids, np.bool_))
    query = np.repeat(np.arange(len(ids)), ids.shape[1])
    testing.assert_array_equal(scores.ravel(), score_pairs(queries, rows, query=query, row=ids.ravel()))
    is_ordered = (scores[:, :-1] > scores[:, 1:]) | ((scores[:, :-1] == scores[:, 1:]) & (ids[:, :-1] < ids[:, 1:]))
    testing.assert_array_equal(is_ordered, np.ones_like(is_ordered))


def _draw_rows(count: int, *, seed: int = 0) -> Rows:
    """Return rows near one of 30 centers, as embeddings lie."""
    centers = np.random.default_rng(9).standard_normal((30, DIMENSION))
    random = np.random.default_rng(seed)
    return unit_rows(centers[random.integers(30, size=count)] + 0.7 * random.standard_normal((count, DIMENSION)))
