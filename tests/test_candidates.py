"""The effort dial reaches FAISS on every kind, also after load and add."""

import threading

import numpy as np
import pytest
from oracles import (
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
    texts_for,
)

from index import structure
from index.device import load_faiss
from index.errors import DeviceError, StoredIndexError
from index.spec import IndexSpec
from index.structure import build_structure, read_structure
from index.vector_index import VectorIndex

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


def work(index, queries, effort):
    """How many rows FAISS compared with a query, by FAISS's own count."""
    counts = load_faiss().cvar.hnsw_stats if index.spec.kind == "hnsw" else load_faiss().cvar.indexIVF_stats
    counts.reset()
    index.search(queries, 10, effort=effort)
    return counts.ndis / len(queries)


def assert_work_grows(index, queries):
    works = [work(index, queries, effort) for effort in EFFORTS]
    assert works == sorted(works)
    assert works[-1] > 10 * works[0] > 0
    return works


def test_more_effort_makes_faiss_compare_more_rows_after_building(index, rows):
    works = assert_work_grows(index, texts_for(rows, 20))
    if index.spec.kind != "hnsw":
        assert works[-1] == len(rows)  # all lists


def test_more_effort_makes_faiss_compare_more_rows_after_loading_and_adding(index, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("index.vector_index.TAIL", 0)
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", rows, device="cpu")
    queries = texts_for(rows, 20)
    before = assert_work_grows(loaded, queries)
    assert before == [work(index, queries, effort) for effort in EFFORTS]
    loaded.add(rows[:500])
    after = assert_work_grows(loaded, queries)
    assert after[-1] > before[-1]


def test_the_default_effort_reaches_faiss_too(index, rows):
    queries = texts_for(rows, 20)
    index.effort = 0.25
    assert work(index, queries, None) == work(index, queries, 0.25) < work(index, queries, 0.5)


def test_efforts_of_searches_at_the_same_time_do_not_mix(index, rows):
    """Each thread gets at its own effort what that effort gets alone."""
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


def test_training_takes_a_sample_that_is_the_same_each_time(rows, monkeypatch):
    monkeypatch.setattr(structure, "POINTS_A_LIST", 40)
    spec = IndexSpec("ivf", lists=20)
    slots = np.arange(100, 6000)
    sample = structure._sample(slots, spec)
    assert len(sample) == 800
    assert np.all(np.diff(sample) > 0)
    assert sample[0] >= 100
    np.testing.assert_array_equal(sample, structure._sample(slots, spec))
    first, again = (build_structure(rows, slots, spec=spec, device="cpu") for _ in range(2))
    queries = texts_for(rows, 5)
    np.testing.assert_array_equal(first.candidates(queries, 20, 0.5), again.candidates(queries, 20, 0.5))


def test_too_few_rows_to_train_make_no_structure(rows):
    assert build_structure(rows, np.arange(63), spec=IndexSpec("ivf", lists=64), device="cpu") is None
    assert build_structure(rows, np.arange(15), spec=SPECS[2], device="cpu") is None
    assert build_structure(rows, np.arange(0), spec=SPECS[0], device="cpu") is None
    assert build_structure(rows, np.arange(9), spec=IndexSpec("exact"), device="cpu") is None


def test_candidates_are_slots_and_never_padding(rows):
    built = build_structure(rows, np.array([10, 20, 4000]), spec=SPECS[0], device="cpu")
    assert sorted(built.candidates(rows[20:21], 10, 1.0)[0].tolist()) == [-1] * 7 + [10, 20, 4000]


def test_a_change_that_broke_off_is_noticed_and_made_good(rows, monkeypatch):
    """FAISS has taken rows in that were never named: the next growth builds anew."""
    monkeypatch.setattr("index.vector_index.TAIL", 0)
    index = VectorIndex.build(rows[:500], spec="hnsw", device="cpu")
    index._snapshot.structure.index.add(rows[500:507])
    assert index.search(rows[500:507], 3).ids.max() < 500
    index.add(rows[500:510])
    assert index._snapshot.structure.index.ntotal == len(index._snapshot.structure.slots) == 510
    np.testing.assert_array_equal(index.search(rows[505:506], 1).ids, [[505]])


def test_a_file_that_faiss_cannot_read_is_named(tmp_path):
    (tmp_path / "index").write_bytes(b"not an index at all")
    with pytest.raises(StoredIndexError, match=r"FAISS cannot read .*index .*delete it"):
        read_structure(tmp_path / "index", np.arange(3), spec=SPECS[0], trained=3, device="cpu")


def test_a_file_of_another_number_of_rows_is_refused(rows, tmp_path):
    build_structure(rows, np.arange(100), spec=SPECS[0], device="cpu").write(tmp_path / "index")
    with pytest.raises(StoredIndexError, match="holds 100 rows where 99"):
        read_structure(tmp_path / "index", np.arange(99), spec=SPECS[0], trained=99, device="cpu")


def test_a_graph_is_not_read_onto_a_gpu(tmp_path):
    with pytest.raises(DeviceError, match="no hnsw on a GPU"):
        read_structure(tmp_path / "index", np.arange(3), spec=SPECS[0], trained=3, device="cuda")
