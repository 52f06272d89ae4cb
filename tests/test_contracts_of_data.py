"""The project's own layouts and filter operators pass the contracts for those who add one."""

import io
import json
import tarfile

import pytest
from pair_files import JPEG, write_jsonl, write_pictures, write_text

from retrieval.filters.operators import OPERATORS
from retrieval.pairs import layouts
from retrieval.pairs.layout import Collector, Layout
from retrieval.testing.layouts import check_layout
from retrieval.testing.operators import check_operator


def write_table(root):
    write_pictures(root, "a.jpg", "b.jpg")
    return write_jsonl(root / "t.jsonl", {"image": "a.jpg", "text": "one", "n": 1}, {"image": "b.jpg"})


def write_captions_json(root):
    write_pictures(root, "a.jpg", "b.jpg")
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg", "license": 3}]
    value = {"images": images, "annotations": [{"image_id": 1, "caption": "one"}]}
    return write_text(root / "captions.json", json.dumps(value))


def write_metadata(root):
    write_pictures(root, "a/a.jpg", "b/b.jpg")
    write_text(root / "a" / "metadata.csv", "file_name,text\na.jpg,one\n")
    write_text(root / "b" / "metadata.csv", "file_name,text\nb.jpg,two\n")
    return root


def write_shards(root):
    for shard in ("0.tar", "1.tar"):
        with tarfile.open(root / shard, "w") as tar:
            for name, data in (("a.jpg", JPEG), ("a.txt", b"one\ntwo"), ("b.jpg", JPEG), ("b.json", b'{"w": 3}')):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return root


def write_parquet(root):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for shard in range(2):
        table = pa.table({"jpg": [JPEG, JPEG], "text": ["one", "two"], "n": [1, 2]})
        parquet.write_table(table, root / f"{shard}.parquet")
    return root


def write_picture_folder(root):
    write_pictures(root, "a.jpg", "inner/b.jpg")
    write_text(root / "a.txt", "one\ntwo\n")
    return root


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def append_broken_row(path):
    path.write_text(path.read_text().splitlines()[0] + "\n{broken\n")


def add_broken_caption(root):
    (root / "a.txt").write_bytes(b"\xff\xfe\x00")


# By the name of each layout in `LAYOUTS`: what writes a source of it, and what damages a part of that source.
SOURCES = {
    "TABLE_FILE": (write_table, append_broken_row),
    "CAPTIONS_JSON": (write_captions_json, truncate),
    "METADATA_FOLDER": (write_metadata, lambda root: write_text(root / "b" / "metadata.csv", "file_name\nb.jpg,two\n")),
    "WEBDATASET": (write_shards, lambda root: (root / "1.tar").write_bytes((root / "0.tar").read_bytes()[:600])),
    "PARQUET_FOLDER": (write_parquet, lambda root: truncate(root / "1.parquet")),
    "PICTURE_FOLDER": (write_picture_folder, add_broken_caption),
}
NAMES = {id(value): name for name, value in vars(layouts).items() if isinstance(value, Layout)}


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.description[:30])
def test_each_layout_passes_the_contract(layout):
    name = NAMES.get(id(layout), layout.description)
    assert name in SOURCES, f"Add {name} to SOURCES of this file: what writes a source of the layout, and damages it."
    check_layout(layout, *SOURCES[name])


def test_contract_notices_a_layout_that_would_lose_the_items_of_a_damaged_row(monkeypatch):
    skip = Collector.skip
    monkeypatch.setattr(Collector, "skip", lambda *args, **kwargs: skip(*args, **kwargs | {"may_hide_items": False}))
    with pytest.raises(AssertionError, match="the next build would drop"):
        check_layout(layouts.TABLE_FILE, write_table, append_broken_row)


# By operator: an operand, values that satisfy the condition, and values that do not.
CASES = {
    "$eq": ("Red", ["red", "RED"], ["blue", 5, True, None]),
    "$ne": ("Red", ["blue", 5, None], ["red"]),
    "$in": ([5, "Red"], ["red", 5, 5.0], [True, "blue", None]),
    "$nin": ([5, "Red"], [True, "blue"], ["red", 5]),
    "$lt": (5, [4, -1.5], [5, "4", True, None]),
    "$lte": ("b", ["a", "B"], ["c", 1, None]),
    "$gt": (5, [6], [5, "6", None]),
    "$gte": ("b", ["c", "B"], ["a", 1, None]),
    "$exists": (True, ["a", 0, False], [None]),
    "$contains": ("Red", ["dark red", "RED"], ["blue", 5, True, None]),
}


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name not in {"$ne", "$nin"}])
def test_each_operator_passes_the_contract(operator):
    assert operator in CASES, f"Add {operator} to CASES of this file: an operand, values that satisfy it, and others."
    operand, matching, other = CASES[operator]
    check_operator(operator, operand, matching=matching, other=other)
