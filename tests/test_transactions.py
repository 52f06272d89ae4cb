"""Transactions on a catalog's records: a search and a small change open few, whatever the size of the catalog."""

from collections import Counter

import pytest
from fake_encoder import FakeEncoder
from PIL import Image

from retrieval.catalog import Catalog
from retrieval.pairs import read_pairs
from retrieval.records.database import Database


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (number * 6, 0, 0)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"picture {number}\n")
    return folder


@pytest.fixture
def catalog(photos, tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as opened:
        opened.build(read_pairs(photos))
        yield opened


@pytest.fixture
def transactions(monkeypatch):
    """Count the "reading" and the "writing" transactions."""
    counts = Counter()
    reading, writing = Database.reading, Database.writing

    def count_reading(self):
        counts["reading"] += 1
        return reading(self)

    def count_writing(self):
        counts["writing"] += 1
        return writing(self)

    monkeypatch.setattr(Database, "reading", count_reading)
    monkeypatch.setattr(Database, "writing", count_writing)
    return counts


def test_a_text_query_reads_the_records_once(catalog, transactions):
    catalog.search("picture 7")
    for options in ({}, {"mode": "vectors"}, {"mode": "words"}, {"target": "captions"}, {"where": {"n": 1}}):
        transactions.clear()
        catalog.search("picture 7", **options)
        assert transactions == {"reading": 1}, options


@pytest.mark.faiss
@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_a_build_that_finds_nothing_to_do_reads_the_records_three_times(catalog, transactions, photos, index):
    pairs = read_pairs(photos)
    catalog.build(pairs, index=index)
    transactions.clear()
    assert catalog.build(pairs).unchanged == 40
    assert transactions == {"reading": 3}


@pytest.mark.parametrize("change", ["upsert", "build"])
def test_one_added_picture_takes_one_write_and_at_most_five_reads(catalog, transactions, photos, change):
    Image.new("RGB", (8, 8), "blue").save(photos / "new.png")
    if change == "upsert":
        assert catalog.upsert([{"id": "new", "images": [photos / "new.png"], "captions": ["blue"]}]).added == 1
    else:
        assert catalog.build(read_pairs(photos)).added == 1
    assert transactions["writing"] == 1
    assert transactions["reading"] <= 5
    assert catalog.search("blue", k=1)[0].id in {"new", "new.png"}


def test_a_changed_attribute_takes_one_write_and_three_reads(catalog, transactions):
    assert catalog.patch([{"id": "07.png", "attributes": {"price": 5}}]).changed == 1
    assert transactions == {"reading": 3, "writing": 1}


def test_a_deletion_takes_one_write(catalog, transactions):
    assert catalog.delete(["07.png"]) == 1
    assert transactions["writing"] == 1
    assert transactions["reading"] <= 1
