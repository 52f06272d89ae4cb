"""A service whose disk is full: its errors, the items that it keeps, and that it recovers once there is room."""

import errno
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from serving import image_bytes, send_lines, serving, to_base64

from retrieval.catalog import Catalog
from retrieval.catalog.write import maintenance
from retrieval.records import locks, vector_store
from retrieval.records.vector_store import append_rows, copy_rows

FULL = OSError(errno.ENOSPC, "No space left on device")


def _item(number):
    """An item whose image takes a few hundred kilobytes."""
    noise = np.random.default_rng(number).integers(0, 256, (300, 300, 3), np.uint8)
    data = b"P6 300 300 255\n" + noise.tobytes()
    return {"images": [{"data": to_base64(data)}], "captions": [f"number {number}"], "attributes": {"number": number}}


@contextmanager
def _mounted(folder, size):
    """Mount a disk of a few megabytes; skip the test without the right to."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def test_full_disk_returns_507_and_keeps_acknowledged_items(tmp_path):
    with (
        _mounted(tmp_path / "disk", "12m") as disk,
        Catalog.open(disk / "c", encoder=FakeEncoder()) as catalog,
        serving(catalog) as client,
    ):
        (disk / "ballast").write_bytes(bytes(2**20))
        kept, status = [], 201
        while status == 201:
            answer = client.put(f"/items/{len(kept)}", json=_item(len(kept)))
            status = answer.status_code
            kept += [str(len(kept))] if status == 201 else []
        assert status == 507, answer.text
        assert "No space left" in answer.json()["error"]
        _fill(disk / "rest")
        (line,) = send_lines(client, [{"put": {"id": "late", **_item(0)}}])
        assert line["status"] == 507
        assert client.patch("/items/0", json={"attributes": {"text": "x" * 500_000}}).status_code == 507
        assert shutil.disk_usage(disk).free == 0

        answer = client.post("/search", json={"text": "number 3", "facets": ["number"], "k": 100}).json()
        assert {hit["id"] for hit in answer["hits"]} == set(kept)
        assert client.post("/search", json={"like": "1", "k": 1}).status_code == 200
        assert client.get("/items/1/images/0?size=120").status_code == 200
        assert client.get("/ready").json()["items"] == len(kept)

        (disk / "ballast").unlink()
        assert client.delete("/items/0").status_code == 200
        assert client.put("/items/late", json={"images": [{"data": to_base64(image_bytes())}]}).status_code == 201
        assert client.get("/ready").json()["items"] == len(kept)
        with Catalog.open(disk / "c", read_only=True) as again:
            assert set(again.get([*kept, "late"])) == {*kept[1:], "late"}


def _raise(error, *_given, **_named):
    raise error


@pytest.fixture
def client(tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog, serving(catalog) as client:
        for number in range(4):
            assert client.put(f"/items/{number}", json=_item(number)).status_code == 201
        yield client


def test_vectors_without_room_return_507_and_searches_continue(client, monkeypatch):
    monkeypatch.setattr(vector_store, "_write_all", partial(_raise, FULL))
    assert client.put("/items/4", json=_item(4)).status_code == 507
    assert client.post("/search", json={"text": "number", "k": 10}).json()["total"] == 4
    monkeypatch.undo()
    assert client.put("/items/4", json=_item(4)).status_code == 201
    assert client.post("/search", json={"text": "number 4", "k": 1}).json()["hits"][0]["id"] == "4"


def test_deletion_succeeds_without_room_to_compact(client, monkeypatch):
    monkeypatch.setattr(maintenance, "copy_rows", partial(_raise, FULL))
    for number in range(3):
        assert client.delete(f"/items/{number}").status_code == 200
    assert client.delete("/items/0").status_code == 404
    assert client.post("/search", json={"text": "number", "k": 10}).json()["total"] == 1


def test_change_succeeds_when_the_lock_file_cannot_hold_a_name(client, monkeypatch):
    monkeypatch.setattr(locks.Path, "open", partial(_raise, FULL))
    assert client.patch("/items/0", json={"attributes": {"price": 1}}).status_code == 200


def test_failed_append_and_copy_release_their_disk_space(tmp_path, monkeypatch):
    rows = np.ones((100, 8), np.float32)
    append_rows(tmp_path / "rows", rows[:3], at=0)

    def half(file, some):
        file.write(some[: len(some) // 2].tobytes())
        raise FULL

    monkeypatch.setattr(vector_store, "_write_all", half)
    with pytest.raises(OSError, match="No space"):
        append_rows(tmp_path / "rows", rows, at=3)
    assert (tmp_path / "rows").stat().st_size == 3 * 8 * 4
    monkeypatch.setattr(vector_store.os, "fsync", partial(_raise, FULL))
    with pytest.raises(OSError, match="No space"):
        copy_rows(rows, np.arange(50), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
