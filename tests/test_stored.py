"""A saved index loads as it was, or is refused with the reason: no damaged or foreign index is searched."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    assert_nearest,
    clustered_rows,
    one_thread,  # noqa: F401 - pytest uses it
)

from index import stored
from index.errors import StoredIndexError
from index.spec import IndexSpec
from index.vector_index import VectorIndex

SPECS = {
    "exact": IndexSpec("exact"),
    "hnsw": IndexSpec("hnsw", links=8, build_effort=16),
    "ivf": IndexSpec("ivf", lists=8),
    "ivfpq": IndexSpec("ivfpq", lists=8, codes=4, code_bits=4),
}
ROWS = clustered_rows(1000, 8)


@pytest.fixture(scope="module", params=SPECS)
def saved(request, tmp_path_factory):
    """An index of 900 rows with 100 dead among the indexed and 50 unindexed rows, and its file."""
    index = VectorIndex.build(ROWS[:850], spec=SPECS[request.param], device="cpu")
    index.extend(ROWS[:900])
    index.remove(np.arange(0, 1000, 10)[:90])
    path = tmp_path_factory.mktemp("stored") / request.param
    index.save(path)
    return index, path


def load(path, rows=ROWS[:900]):
    return VectorIndex.load(path, rows, device="cpu")


def assert_same(one, other):
    for effort in (0.3, 1.0):
        left, right = (index.search(ROWS[::25], 10, effort=effort) for index in (one, other))
        np.testing.assert_array_equal(left.ids, right.ids)
        np.testing.assert_array_equal(left.scores, right.scores)


def test_loaded_index_returns_what_the_saved_one_does(saved):
    index, path = saved
    loaded = load(path)
    assert (len(loaded), loaded.slots, loaded.spec) == (len(index), 900, index.spec)
    np.testing.assert_array_equal(loaded.dead, index.dead)
    assert_same(index, loaded)


def test_loaded_index_can_be_changed_and_saved_over_its_own_memory_map(saved, tmp_path):
    _, path = saved
    copy = tmp_path / "index"
    copy.write_bytes(path.read_bytes())
    loaded = load(copy)
    loaded.extend(ROWS)
    loaded.remove(np.array([1, 2, 950]))
    loaded.save(copy)
    assert_same(loaded, load(copy, ROWS))
    loaded.remove(np.arange(400))  # rebuilt
    loaded.save(copy)
    assert_same(loaded, load(copy, ROWS))


def test_rows_appended_after_saving_are_found(saved):
    _, path = saved
    loaded = load(path, ROWS)
    live = np.setdiff1d(np.arange(1000), loaded.dead)
    assert loaded.slots == 1000
    assert_nearest(loaded.search(ROWS[::20], 5, allowed=live), ROWS[::20], ROWS, 5, live)
    assert loaded.search(ROWS[955:956], 1).ids.tolist() == [[955]]


def test_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(StoredIndexError, match=r"No index can be read from .*gone"):
        load(tmp_path / "gone")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_file_truncated_anywhere_is_refused(saved, data, tmp_path_factory):
    whole = saved[1].read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(StoredIndexError, match=r"damaged \(.*\)\. Delete it and build it again"):
        load(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_file_with_one_flipped_bit_is_refused(saved, data, tmp_path_factory):
    flipped = bytearray(saved[1].read_bytes())
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(flipped)
    with pytest.raises(StoredIndexError, match="damaged"):
        load(path)


@pytest.mark.faiss
@pytest.mark.parametrize("place", [0, 40, 65_000, -65_000, -400])
def test_ends_and_length_of_a_large_file_are_checked(place, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "FULL_CHECK_LIMIT", 1000)
    path = tmp_path / "index"
    rows = clustered_rows(4000, 16)
    VectorIndex.build(rows, spec="ivf", device="cpu").save(path)
    load(path, rows)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StoredIndexError, match="damaged"):
        load(path, rows)
    path.write_bytes(damaged[:100_000] + damaged[104_096:])
    with pytest.raises(StoredIndexError, match="damaged"):
        load(path, rows)


def test_little_of_a_large_file_is_read(monkeypatch):
    """A checksum over 200 MB would cost what the memory map saves."""
    parts = list(stored._list_checked_parts(200 << 20))
    assert sum(length for _, length in parts) == 2 * (64 << 10) + 64 * 4096
    assert parts[0] == (0, 64 << 10)
    assert sum(parts[-1]) == 200 << 20
    monkeypatch.setattr(stored, "FULL_CHECK_LIMIT", 300 << 20)
    assert sum(length for _, length in stored._list_checked_parts(200 << 20)) == 200 << 20


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (ROWS[:899], "indexes 900 rows of dimension 8, not 899 of 8"),
        (clustered_rows(900, 9), "indexes 900 rows of dimension 8, not 900 of 9"),
        (clustered_rows(900, 8, seed=3), "made of other vectors"),
        (np.vstack([ROWS[:899], ROWS[:1]]), "made of other vectors"),
        (ROWS[:0], "not 0 of 8"),
    ],
)
def test_index_of_other_rows_is_refused(saved, rows, named):
    with pytest.raises(StoredIndexError, match=named):
        load(saved[1], rows)


def test_file_of_a_newer_format_is_refused_with_both_versions(saved, tmp_path):
    rewritten = rewrite(saved[1].read_bytes(), format=2)
    (tmp_path / "newer").write_bytes(rewritten)
    with pytest.raises(StoredIndexError, match="its format is 2, and this version reads 1"):
        load(tmp_path / "newer")


def test_impossible_spec_is_refused(saved, tmp_path):
    (tmp_path / "odd").write_bytes(rewrite(saved[1].read_bytes(), spec={"kind": "flat"}))
    with pytest.raises(StoredIndexError, match=r"damaged .* index kind"):
        load(tmp_path / "odd")


def rewrite(whole, **facts):
    """Return the file with other values in its footer, and checksums that fit."""
    length, _, magic = struct.unpack("<QI8s", whole[-20:])
    text = json.dumps(json.loads(whole[-20 - length : -20]) | facts).encode()
    return whole[: -20 - length] + text + struct.pack("<QI8s", len(text), zlib.crc32(text), magic)


def test_interrupted_save_leaves_the_former_file_and_nothing_else(saved, tmp_path, monkeypatch):
    path = tmp_path / "index"
    path.write_bytes(saved[1].read_bytes())
    (tmp_path / ".index.new").write_bytes(b"left by a kill")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(stored, "_make_trailer", full)
    with pytest.raises(StoredIndexError, match=r"could not be written to .*No space left.*Make room"):
        saved[0].save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    assert_same(saved[0], load(path))


def test_file_left_by_a_killed_save_does_not_disturb_the_next(saved, tmp_path):
    (tmp_path / ".index.new").write_bytes(b"left by a kill")
    saved[0].save(tmp_path / "index")
    assert_same(saved[0], load(tmp_path / "index"))
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_missing_folder_is_an_error(saved, tmp_path):
    with pytest.raises(StoredIndexError, match="could not be written"):
        saved[0].save(tmp_path / "gone" / "index")


def test_empty_index_is_saved_and_loaded(tmp_path):
    VectorIndex.build(ROWS[:0], spec="hnsw", device="cpu").save(tmp_path / "index")
    loaded = load(tmp_path / "index", ROWS)
    assert loaded.spec.kind == "hnsw"
    assert_nearest(loaded.search(ROWS[:3], 4), ROWS[:3], ROWS, 4)
