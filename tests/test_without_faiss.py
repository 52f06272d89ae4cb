"""Without FAISS everything is searched exactly: what needs it is refused in one line, and an index waits for it."""

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from oracles import SMALL

from index.device import faiss_problem, resolve_device
from index.errors import DeviceError
from index.exact import exact_search
from index.kinds import KINDS, exact
from index.spec import choose_spec, choose_spec_for_machine, estimate_bytes
from index.vector_index import VectorIndex
from index.vectors import unit_rows
from retrieval.catalog import Catalog, index_updater
from retrieval.pairs import Pairs
from retrieval.testing.kinds import check_index_kind

COMMAND = r"pip install 'crossmodal-retrieval\[cpu\]'"
ITEMS = [
    {"id": f"item {number}", "image_vectors": row[None], "captions": []}
    for number, row in enumerate(unit_rows(np.random.default_rng(0).normal(size=(300, 16))))
]
ROWS = np.concatenate([item["image_vectors"] for item in ITEMS])


@pytest.fixture
def nothing(tmp_path):
    """Pairs of an empty folder."""
    (tmp_path / "nothing").mkdir()
    return Pairs(source=tmp_path / "nothing", root=tmp_path / "nothing", layout="folder", pairs=())


@pytest.fixture
def hnsw_catalog(tmp_path, nothing):
    """A folder of a catalog with an index of kind hnsw."""
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(ITEMS)
        catalog.build(nothing, index="hnsw")
    return tmp_path / "c"


def nearest(catalog, row):
    return [hit.id for hit in catalog.search(vector=row, k=5)]


def truly_nearest(row):
    return [f"item {number}" for number in exact_search(row[None], ROWS, 5).ids[0]]


@pytest.mark.usefixtures("no_faiss")
def test_auto_takes_exact_and_names_what_to_install_where_faiss_would_be_quicker(monkeypatch):
    monkeypatch.setitem(exact.MAX_NUMBERS, "cpu", 1000)
    assert choose_spec(1000, 4).kind == "hnsw"
    chosen = choose_spec_for_machine(1000, 4)
    assert chosen.kind == "exact"
    assert chosen.reason == f"hnsw would be quicker for 1,000 rows of dimension 4, but {faiss_problem()}"
    assert "[cpu]" in faiss_problem()


@pytest.mark.usefixtures("no_faiss")
def test_auto_does_not_speak_of_faiss_where_exact_is_the_choice_anyway():
    assert choose_spec_for_machine(300, 16) == choose_spec(300, 16, memory=1 << 40)
    assert VectorIndex.build(ROWS).spec.kind == "exact"


@pytest.mark.usefixtures("no_faiss")
def test_sizes_are_known_without_faiss():
    assert estimate_bytes(SMALL["hnsw"], 1000, 16) > 64_000


@pytest.mark.usefixtures("no_faiss")
def test_a_gpu_is_refused_with_the_reason():
    with pytest.raises(DeviceError, match="FAISS is not installed"):
        resolve_device("cuda")


@pytest.mark.usefixtures("no_faiss")
def test_contract_of_a_kind_without_its_engine_is_a_device_error():
    for kind in KINDS.keys() - {"exact"}:
        with pytest.raises(DeviceError, match=COMMAND):
            check_index_kind(SMALL[kind])


@pytest.mark.usefixtures("no_faiss")
def test_a_kind_that_needs_faiss_is_refused_before_anything_is_encoded(tmp_path, nothing):
    encoder = FakeEncoder()
    with (
        Catalog.open(tmp_path / "c", encoder=encoder) as catalog,
        pytest.raises(DeviceError, match=f"kind ivf cannot be built here.*{COMMAND}"),
    ):
        catalog.build(nothing, index="ivf")
    assert encoder.images == 0


@pytest.mark.faiss
def test_a_catalog_with_an_index_is_searched_exactly_with_one_notice(hnsw_catalog, caplog, request):
    index_updater._warn_of_missing_engine.cache_clear()
    request.getfixturevalue("no_faiss")
    for _ in range(2):
        with Catalog.open(hnsw_catalog, read_only=True) as catalog:
            assert nearest(catalog, ROWS[7]) == truly_nearest(ROWS[7])
            assert nearest(catalog, ROWS[9]) == truly_nearest(ROWS[9])
            assert catalog.served.images.search(ROWS[:1], 5).ids[0, 0] == 0
    (line,) = caplog.messages
    assert "a search reads every vector, without the hnsw index: FAISS is not installed" in line


@pytest.mark.faiss
@pytest.mark.parametrize("index", [None, "auto"])
def test_a_build_without_faiss_keeps_the_index_for_a_machine_that_has_it(hnsw_catalog, nothing, request, index):
    (saved,) = hnsw_catalog.glob("images-*.faiss")
    before = saved.read_bytes()
    request.getfixturevalue("no_faiss")
    with Catalog.open(hnsw_catalog) as catalog:
        catalog.upsert([{"id": "late", "image_vectors": -ROWS[:1]}])
        catalog.build(nothing, index=index)
        assert nearest(catalog, -ROWS[0])[0] == "late"
        assert "images: hnsw (every vector is read here: FAISS is not installed" in catalog.info()["index"]
    assert saved.read_bytes() == before


@pytest.mark.faiss
def test_a_catalog_without_faiss_may_be_made_exact(hnsw_catalog, nothing, request):
    request.getfixturevalue("no_faiss")
    with Catalog.open(hnsw_catalog) as catalog:
        catalog.build(nothing, index="exact")
        assert catalog.info()["index"] == "images: exact (asked for)"
    assert not list(hnsw_catalog.glob("images-*.faiss"))
