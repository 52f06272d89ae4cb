"""The project's own layouts and filter operators pass the contracts for those who add one."""

import io
import json
import tarfile

import pyarrow as pa
import pytest
from pair_files import JPEG, write_jsonl, write_pictures, write_text
from pyarrow import parquet

from retrieval.filters.operators import OPERATORS
from retrieval.pairs.layouts import LAYOUTS
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
    for shard in range(2):
        table = pa.table({"jpg": [JPEG, JPEG], "text": ["one", "two"], "n": [1, 2]})
        parquet.write_table(table, root / f"{shard}.parquet")
    return root


def write_picture_folder(root):
    write_pictures(root, "a.jpg", "inner/b.jpg")
    write_text(root / "a.txt", "one\ntwo\n")
    return root


WRITERS = (write_table, write_captions_json, write_metadata, write_shards, write_parquet, write_picture_folder)


@pytest.mark.parametrize(("layout", "write"), list(zip(LAYOUTS, WRITERS, strict=True)))
def test_each_layout_passes_the_contract(layout, write):
    check_layout(layout, write)


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


def test_every_operator_has_a_case():
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize("operator", [name for name in CASES if name not in {"$ne", "$nin"}])
def test_each_operator_passes_the_contract(operator):
    operand, matching, other = CASES[operator]
    check_operator(operator, operand, matching=matching, other=other)
