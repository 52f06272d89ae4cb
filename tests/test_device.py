"""FAISS loads on first use; errors name the remedy; `auto` falls back to the CPU, `cuda` never does."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import assert_nearest, clustered_rows, random_rows, texts_for

from index import device
from index.device import count_gpus, load_faiss, resolve_device, translate_gpu_errors
from index.errors import DeviceError, SpecError
from index.exact import exact_search
from index.spec import IndexSpec
from index.vector_index import VectorIndex


@pytest.fixture
def fresh():
    """Forget what was loaded before and after."""
    load_faiss.cache_clear()
    yield
    load_faiss.cache_clear()


def install(monkeypatch, *names):
    monkeypatch.setattr(device, "_is_installed", lambda package: package in names)


def connect(monkeypatch, *, gpus):
    monkeypatch.setattr(device, "count_gpus", lambda: gpus)


@pytest.mark.usefixtures("no_faiss")
def test_missing_faiss_is_an_error_that_names_both_ways_to_install_it():
    with pytest.raises(DeviceError, match=r"pip install 'crossmodal-retrieval\[cpu\]', or \[gpu\]"):
        VectorIndex.build(random_rows(100, 4), spec="hnsw")


@pytest.mark.usefixtures("no_faiss")
def test_exact_kind_needs_no_faiss():
    rows = random_rows(100, 4)
    assert_nearest(VectorIndex.build(rows, spec="exact").search(rows[:3], 5), rows[:3], rows, 5)


@pytest.mark.usefixtures("fresh")
def test_two_faiss_distributions_are_an_error(monkeypatch):
    install(monkeypatch, "faiss-cpu", "faiss-gpu")
    with pytest.raises(DeviceError, match="faiss-cpu and faiss-gpu are both installed"):
        load_faiss()


def test_exact_kind_loads_no_faiss():
    program = (
        "import sys, numpy as np; from index.vector_index import VectorIndex\n"
        "index = VectorIndex.build(np.eye(4, dtype=np.float32)); index.search(np.eye(4, dtype=np.float32), 2)\n"
        "print('faiss' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_cuda_without_a_cuda_build_of_faiss_is_an_error(monkeypatch):
    monkeypatch.setattr(device, "load_faiss", lambda: SimpleNamespace(__version__="1.15.1"))
    with pytest.raises(DeviceError, match=r"built without CUDA.*crossmodal-retrieval\[gpu\]"):
        resolve_device("cuda")


def test_cuda_without_a_device_is_an_error_and_auto_falls_back(monkeypatch):
    fake = SimpleNamespace(__version__="1.15.1", StandardGpuResources=object, get_num_gpus=lambda: 0)
    monkeypatch.setattr(device, "load_faiss", lambda: fake)
    install(monkeypatch, "faiss-gpu")
    connect(monkeypatch, gpus=1)
    with pytest.raises(DeviceError, match="FAISS finds no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


def test_auto_takes_an_available_gpu_and_cpu_never_looks(monkeypatch):
    fake = SimpleNamespace(__version__="1.15.1", StandardGpuResources=object, get_num_gpus=lambda: 1)
    monkeypatch.setattr(device, "load_faiss", lambda: fake)
    install(monkeypatch, "faiss-gpu")
    connect(monkeypatch, gpus=1)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cpu") == "cpu"


def test_auto_without_a_gpu_is_the_cpu_and_looks_up_no_package(monkeypatch):
    connect(monkeypatch, gpus=0)
    monkeypatch.setattr(device, "_is_installed", lambda package: pytest.fail(f"{package} was looked up"))
    assert resolve_device("auto") == "cpu"


class Driver:
    """A CUDA driver that shows `count` devices, or whose start or count fails with an error code."""

    def __init__(self, *, count=0, start=0, counting=0):
        self.cuInit = lambda _flags: start
        self.cuDeviceGetCount = lambda place: setattr(place._obj, "value", count) or counting


def no_library(_name):
    raise OSError("cannot open shared object file")


@pytest.mark.parametrize(
    ("open_library", "gpus"),
    [
        (lambda _name: Driver(count=2), 2),
        (lambda _name: Driver(count=0), 0),
        (lambda _name: Driver(count=2, start=100), 0),
        (lambda _name: Driver(count=2, counting=3), 0),
        (lambda _name: object(), 0),
        (no_library, 0),
    ],
    ids=["two devices", "no device", "start fails", "count fails", "another library", "no driver"],
)
def test_gpus_are_counted_by_the_driver_and_none_are_where_it_fails(monkeypatch, open_library, gpus):
    monkeypatch.setattr(device.ctypes, "CDLL", open_library)
    count_gpus.cache_clear()
    assert count_gpus() == gpus
    count_gpus.cache_clear()


def test_unknown_device_is_refused():
    with pytest.raises(SpecError, match=r"'tpu'\. Use auto, cpu or cuda"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (IndexSpec("hnsw"), "no hnsw on a GPU"),
        (IndexSpec("ivf", lists=2049), "2049 lists are too many: a GPU searches at most 2048"),
        (IndexSpec("ivfpq", code_bits=4), "Codes of 4 bits"),
    ],
)
def test_gpu_refuses_kinds_and_sizes_that_it_cannot_hold(spec, named):
    with pytest.raises(DeviceError, match=named):
        spec.create_kind().choose_sizes(9, 8).build(random_rows(9, 8), np.arange(9), device="cuda")


def test_gpu_out_of_memory_is_distinguished_from_other_failures():
    words = "Error: alloc fail type FlatData dev 0 size 9 bytes (cudaMalloc error out of memory [2])"
    with (
        pytest.raises(DeviceError, match=r"not enough memory.*out of memory \[2\]\)\)\. Use kind ivfpq"),
        translate_gpu_errors("cuda"),
    ):
        raise RuntimeError(words)
    with pytest.raises(DeviceError, match=r"cannot hold this index \(is not supported\)"), translate_gpu_errors("cuda"):
        raise RuntimeError("is not supported")
    with pytest.raises(RuntimeError, match="no GPU here"), translate_gpu_errors("cpu"):
        raise RuntimeError("no GPU here")


@pytest.mark.faiss
def test_auto_falls_back_to_the_cpu_where_the_gpu_cannot_hold_the_index(monkeypatch):
    monkeypatch.setattr("index.vector_index.resolve_device", lambda _: "cuda")
    rows = clustered_rows(200, 8)
    assert VectorIndex.build(rows, spec="hnsw", device="auto").device == "cpu"
    with pytest.raises(DeviceError, match="no hnsw on a GPU"):
        VectorIndex.build(rows, spec="hnsw", device="cuda")


# What follows runs on a GPU alone.

GPU_SPECS = [IndexSpec(), IndexSpec("ivf", lists=64), IndexSpec("ivfpq", lists=64)]


@pytest.fixture(scope="module")
def gpu_rows():
    return clustered_rows(20_000, 64)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", GPU_SPECS, ids=str)
def test_gpu_index_finds_the_nearest_through_removes_filters_and_files(spec, gpu_rows, tmp_path):
    queries = texts_for(gpu_rows, 50)
    index = VectorIndex.build(gpu_rows, spec=spec, device="cuda")
    index.remove(np.arange(0, 3000))
    allowed = np.arange(1000, 20_000, 7)
    filtered = index.search(queries, 10, allowed=allowed)
    assert_nearest(filtered, queries, gpu_rows, 10, allowed[allowed >= 3000])
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", gpu_rows, device="cuda")
    for one in (index, loaded):
        found, true = one.search(queries, 10, effort=1), one.search_exactly(queries, 10)
        least = 0.99 if spec.kind == "ivfpq" else 1.0
        assert np.mean(found.scores >= true.scores[:, -1:]) >= least
        assert (one.device, found.ids.min() >= 3000) == ("cuda", True)


@pytest.mark.gpu
def test_exact_on_a_gpu_is_identical_to_exact_search(gpu_rows):
    queries = texts_for(gpu_rows, 50)
    found = VectorIndex.build(gpu_rows, spec="exact", device="cuda").search(queries, 10)
    true = exact_search(queries, gpu_rows, 10)
    np.testing.assert_array_equal(found.ids, true.ids)
    np.testing.assert_array_equal(found.scores, true.scores)


@pytest.mark.gpu
def test_more_results_than_a_gpu_returns_are_found_exactly(gpu_rows):
    found = VectorIndex.build(gpu_rows, spec="ivf", device="cuda").search(gpu_rows[:2], 3000)
    assert_nearest(found, gpu_rows[:2], gpu_rows, 3000)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", GPU_SPECS[1:], ids=str)
def test_more_effort_finds_more_on_a_gpu(spec, gpu_rows):
    queries = texts_for(gpu_rows, 200)
    index = VectorIndex.build(gpu_rows, spec=spec, device="cuda")
    true = index.search_exactly(queries, 10).scores[:, -1:]
    recalls = [np.mean(index.search(queries, 10, effort=effort).scores >= true) for effort in (0, 0.5, 1)]
    assert recalls[0] < recalls[1] < recalls[2]
