"""What nearest rows are, in plain numpy and float64: no blocks, no candidates, no FAISS."""

from functools import partial

import numpy as np
import pytest

from index.device import faiss_problem, load_faiss
from index.exact import score_pairs
from index.kinds import KINDS
from index.spec import IndexSpec
from index.vector_index import VectorIndex
from index.vectors import unit_rows

# Sizes at which FAISS trains in milliseconds.
SMALL = {kind: IndexSpec(kind) for kind in KINDS} | {
    "hnsw": IndexSpec("hnsw", links=16, build_effort=64),
    "ivf": IndexSpec("ivf", lists=8),
    "ivfpq": IndexSpec("ivfpq", lists=8, codes=2, code_bits=4),
}
build = partial(VectorIndex.build, device="cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """FAISS on one thread in the modules that import this: on tiny trainings its threads only wait for each other."""
    if faiss_problem():
        yield
        return
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def plain_search(queries, rows, k, allowed=None):
    """Return ids and scores, (q, min(k, allowed)): all products, rounded to float32 and sorted, ties in id order."""
    scores = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
    allowed = np.arange(len(rows)) if allowed is None else np.asarray(allowed, np.int64)
    order = np.argsort(-scores[:, allowed], axis=1, kind="stable")[:, :k]
    ids = allowed[order]
    return ids, np.take_along_axis(scores, ids, axis=1)


def random_rows(count, dimension, *, seed=0):
    """Return unit rows in uniformly random directions."""
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dimension)))


def clustered_rows(count, dimension, *, clusters=20, seed=0):
    """Return unit rows as embeddings lie: near one of a few centers."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((clusters, dimension))
    return unit_rows(centers[random.integers(clusters, size=count)] + 0.7 * random.standard_normal((count, dimension)))


def texts_for(rows, count, *, seed=1):
    """Return queries as texts lie among images: partly towards a row, partly where no row is."""
    random = np.random.default_rng(seed)
    towards = rows[random.integers(len(rows), size=count)]
    return unit_rows(0.5 * towards + unit_rows(random.standard_normal((count, rows.shape[1]))))


def assert_nearest(found, queries, rows, k, allowed=None):
    """Assert that the results are exactly the nearest: same ids in the same order, same scores to the last bit."""
    ids, scores = plain_search(queries, rows, k, allowed)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)


def assert_true_scores(found, queries, rows):
    """Assert that every score is that of the stored row, to the last bit."""
    query = np.repeat(np.arange(len(queries)), found.ids.shape[1])
    exact = score_pairs(queries, rows, query=query, row=found.ids.ravel())
    np.testing.assert_array_equal(found.scores.ravel(), exact)


def recall(found, queries, rows, k, allowed=None):
    """Return the fraction of the true k that was found; equal scores count for each other."""
    return float(np.mean(found.scores >= plain_search(queries, rows, k, allowed)[1][:, -1:]))
