"""FaissCandidates: the effort reaches FAISS on every kind, training is repeatable, and damage is noticed."""

import threading

import numpy as np
import pytest
from oracles import (
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
    texts_for,
)

from index.device import load_faiss
from index.errors import DeviceError, StoredIndexError
from index.kinds import ivf
from index.spec import IndexSpec
from index.vector_index import VectorIndex

pytestmark = pytest.mark.faiss
SPECS = [IndexSpec("hnsw", links=8, build_effort=32), IndexSpec("ivf"), IndexSpec("ivfpq", codes=4, code_bits=4)]
EFFORTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def rows():
    return clustered_rows(6000, 16)


@pytest.fixture(params=SPECS, ids=lambda spec: spec.kind, scope="module")
def spec(request):
    return request.param


@pytest.fixture(scope="module")
def index(rows, spec):
    return VectorIndex.build(rows, spec=spec, device="cpu")


def count_comparisons(index, queries, effort):
    """Rows that FAISS compared with a query, by FAISS's own count."""
    counts = load_faiss().cvar.hnsw_stats if index.spec.kind == "hnsw" else load_faiss().cvar.indexIVF_stats
    counts.reset()
    index.search(queries, 10, effort=effort)
    return counts.ndis / len(queries)


def assert_work_grows(index, queries):
    works = [count_comparisons(index, queries, effort) for effort in EFFORTS]
    assert works == sorted(works)
    assert works[-1] > 10 * works[0] > 0
    return works


def test_more_effort_compares_more_rows_after_building(index, rows):
    works = assert_work_grows(index, texts_for(rows, 20))
    if index.spec.kind != "hnsw":
        assert works[-1] == len(rows)  # all lists


def test_more_effort_compares_more_rows_after_loading_and_adding(index, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("index.vector_index.MAX_UNINDEXED", 0)
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", rows, device="cpu")
    queries = texts_for(rows, 20)
    before = assert_work_grows(loaded, queries)
    assert before == [count_comparisons(index, queries, effort) for effort in EFFORTS]
    loaded.add(rows[:500])
    after = assert_work_grows(loaded, queries)
    assert after[-1] > before[-1]


def test_default_effort_reaches_faiss(index, rows):
    queries = texts_for(rows, 20)
    index.effort = 0.25
    assert (
        count_comparisons(index, queries, None)
        == count_comparisons(index, queries, 0.25)
        < count_comparisons(index, queries, 0.5)
    )


def test_concurrent_searches_keep_their_own_efforts(index, rows):
    """Each thread finds at its own effort what a search of that effort finds alone."""
    queries = texts_for(rows, 10)
    alone = {effort: index.search(queries, 10, effort=effort).ids for effort in (0.0, 1.0)}
    wrong = []

    def search(effort):
        for _ in range(8):
            wrong.append(np.any(index.search(queries, 10, effort=effort).ids != alone[effort]))  # noqa: PERF401 - one by one

    threads = [threading.Thread(target=search, args=(effort,)) for effort in (0.0, 1.0, 0.0, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 32


def test_training_samples_the_same_rows_each_time(rows, monkeypatch):
    monkeypatch.setattr(ivf, "TRAINING_ROWS_PER_LIST", 40)
    kind = IndexSpec("ivf", lists=20).create_kind()
    slots = np.arange(100, 6000)
    sample = kind.training_sample(slots)
    assert len(sample) == 800
    assert np.all(np.diff(sample) > 0)
    assert sample[0] >= 100
    np.testing.assert_array_equal(sample, kind.training_sample(slots))
    first, again = (kind.build(rows, slots, device="cpu") for _ in range(2))
    queries = texts_for(rows, 5)
    np.testing.assert_array_equal(first.candidates(queries, 20, 0.5), again.candidates(queries, 20, 0.5))


def test_too_few_rows_to_train_build_no_candidate_index(rows):
    assert build(rows, np.arange(63), IndexSpec("ivf", lists=64)) is None
    assert build(rows, np.arange(15), SPECS[2]) is None
    assert build(rows, np.arange(0), SPECS[0]) is None
    assert build(rows, np.arange(9), IndexSpec("exact")) is None


def build(rows, slots, spec):
    return spec.create_kind().choose_sizes(len(slots), rows.shape[1]).build(rows, slots, device="cpu")


def test_candidates_are_slots_padded_with_minus_one(rows):
    candidate_index = build(rows, np.array([10, 20, 4000]), SPECS[0])
    assert sorted(candidate_index.candidates(rows[20:21], 10, 1.0)[0].tolist()) == [-1] * 7 + [10, 20, 4000]


def test_interrupted_add_is_detected_and_the_index_rebuilt(rows, monkeypatch):
    """FAISS holds rows without slots: the next growth rebuilds it."""
    monkeypatch.setattr("index.vector_index.MAX_UNINDEXED", 0)
    index = VectorIndex.build(rows[:500], spec="hnsw", device="cpu")
    index._snapshot.candidate_index.index.add(rows[500:507])
    assert index.search(rows[500:507], 3).ids.max() < 500
    index.add(rows[500:510])
    assert index._snapshot.candidate_index.index.ntotal == len(index._snapshot.candidate_index.slots) == 510
    np.testing.assert_array_equal(index.search(rows[505:506], 1).ids, [[505]])


def test_unreadable_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "index").write_bytes(b"not an index at all")
    with pytest.raises(StoredIndexError, match=r"FAISS cannot read .*index .*Delete it"):
        SPECS[0].create_kind().load(tmp_path / "index", np.arange(3), dimension=16, trained=3, device="cpu")


def test_file_with_another_number_of_rows_is_refused(rows, tmp_path):
    build(rows, np.arange(100), SPECS[0]).save(tmp_path / "index")
    with pytest.raises(StoredIndexError, match="holds 100 rows of 16, and 99 of 16 are expected"):
        SPECS[0].create_kind().load(tmp_path / "index", np.arange(99), dimension=16, trained=99, device="cpu")


def test_hnsw_is_not_loaded_onto_a_gpu(tmp_path):
    with pytest.raises(DeviceError, match="no hnsw on a GPU"):
        SPECS[0].create_kind().load(tmp_path / "index", np.arange(3), dimension=16, trained=3, device="cuda")
