"""Searching a catalog: hits equal a linear scan after any sequence of changes."""

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from fake_encoder import DIMENSION, FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from index import vector_index
from index.errors import DeviceError
from index.exact import exact_search
from index.vector_index import VectorIndex
from index.vectors import unit_rows
from retrieval.catalog import Catalog, SearchRequest, index_updater, is_catalog, side
from retrieval.catalog.search import single
from retrieval.catalog.write import maintenance
from retrieval.errors import CatalogError, CatalogFormatError, CatalogLockedError, QueryError
from retrieval.hashing import content_hash
from retrieval.images import open_image
from retrieval.pairs import Pairs, read_pairs
from retrieval.records.state import SideState

COLORS = ("red", "green", "blue", "white", "black")


@pytest.fixture
def shop(tmp_path):
    """A catalog of one item for each colour: a plain picture, a caption, a price."""
    for color in COLORS:
        Image.new("RGB", (16, 16), color).save(tmp_path / f"{color}.png")
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert(
            {
                "id": color,
                "images": [tmp_path / f"{color}.png"],
                "captions": [f"a {color} square"],
                "attributes": {"price": 10 * price, "color": color.upper()},
            }
            for price, color in enumerate(COLORS)
        )
        yield catalog


def picture_of(color):
    file = BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "PNG")
    return file.getvalue()


def ids(hits):
    return [hit.id for hit in hits]


def random_items(generator, count, *, dimension=6, images=3):
    return [
        {
            "id": f"item {number}",
            "image_vectors": unit_rows(generator.normal(size=(generator.integers(1, images + 1), dimension))),
            "attributes": {"number": number, "even": number % 2 == 0},
        }
        for number in range(count)
    ]


def with_captions(items, generator, *, dimension=6):
    for item in items:
        item["captions"] = [f"{item['id']}, text {one}" for one in range(generator.integers(1, 3))]
        item["caption_vectors"] = unit_rows(generator.normal(size=(len(item["captions"]), dimension)))
    return items


def best_images(items, query, k):
    """The linear scan: each item's best cosine, best first."""
    scores = {item["id"]: float(np.max(item["image_vectors"] @ query)) for item in items}
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]


# --- the four directions


def test_text_finds_the_image_that_it_describes(shop):
    hits = shop.search("something blue", k=2, mode="vectors")
    assert (hits[0].id, hits[0].rank, hits[1].rank, hits[0].target) == ("blue", 1, 2, "images")
    assert hits[0].score == pytest.approx(_cosine("something blue", "blue"), abs=1e-6)
    assert hits[0].caption == "a blue square"
    assert hits[0].attributes == {"price": 20, "color": "BLUE"}
    assert Image.open(hits[0].image).getpixel((0, 0)) == (0, 0, 255)


def _cosine(text, color):
    encoder = FakeEncoder()
    picture = encoder.encode_images([Image.new("RGB", (16, 16), color)])
    return float((encoder.encode_texts([text]) @ picture.T)[0, 0])


def test_image_finds_its_caption_and_the_hit_names_the_item(shop, tmp_path):
    hit = shop.search(image=tmp_path / "green.png", k=1)[0]
    assert (hit.target, hit.caption, hit.id) == ("captions", "a green square", "green")
    assert hit.image == str(tmp_path / "green.png")


def test_target_ranks_images_for_an_image_and_captions_for_a_text(shop, tmp_path):
    assert ids(shop.search(image=tmp_path / "red.png", target="images", k=1)) == ["red"]
    assert shop.search("red", target="captions", k=1)[0].caption == "a red square"


def test_image_alone_ranks_images_in_a_catalog_without_captions(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert([{"id": "a", "images": [tmp_path / "a.png"]}])
        assert catalog.search(image=tmp_path / "a.png")[0].target == "images"
        assert catalog.search("red", target="captions") == []


def test_minus_and_weights_change_the_ranking(shop, tmp_path):
    assert ids(shop.search("white", k=2))[0] == "white"
    assert "red" not in ids(shop.search("white", minus="red", k=3))
    mixed = {"image": tmp_path / "blue.png", "k": 1}
    assert ids(shop.search("red", weights={"image": 0.1}, **mixed)) == ["red"]
    assert ids(shop.search("red", weights={"image": 10}, **mixed)) == ["blue"]


def test_like_ranks_the_other_items_and_excludes_the_item_itself(shop):
    found = ids(shop.search(like="white", k=10))
    assert sorted(found) == sorted(set(COLORS) - {"white"})
    assert ids(shop.search("white", like="white", k=10)) != []
    assert "white" not in ids(shop.search("white", like="white", k=10))
    with pytest.raises(QueryError, match="no item 'pink'"):
        shop.search(like="pink")


def test_vector_search_needs_no_encoder_and_scores_by_cosine(shop, tmp_path):
    row = FakeEncoder().encode_images([Image.new("RGB", (16, 16), "black")])[0]
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        hit = reader.search(vector=3 * row, k=1)[0]
        assert (hit.id, hit.score) == ("black", pytest.approx(1, abs=1e-6))
        assert ids(reader.search(like="black", k=2)) == ids(shop.search(like="black", k=2))


# --- filters, grouping, limits


def test_filters_are_exact_and_no_match_is_no_error(shop):
    assert ids(shop.search("red", where={"price": {"$gte": 30}})) == ids(
        [hit for hit in shop.search("red") if hit.attributes["price"] >= 30]
    )
    assert ids(shop.search("red", where={"color": "green"})) == ["green"]
    assert shop.search("red", where={"color": "pink"}) == []
    with pytest.raises(QueryError):
        shop.search("red", where={"price": {"$near": 3}})


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_must_be_a_positive_integer(shop, k):
    with pytest.raises(QueryError, match=r"Invalid value for k: .* a whole number of at least 1"):
        shop.search("red", k=k)


def test_invalid_requests_are_query_errors(shop):
    with pytest.raises(QueryError, match="Invalid value for target: 'pictures'"):
        shop.search("red", target="pictures")
    with pytest.raises(QueryError, match="dimension 2, and 24"):
        shop.search(vector=[1.0, 0.0])
    with pytest.raises(QueryError, match="nothing to search for"):
        shop.search()
    with pytest.raises(QueryError, match="Invalid value for effort: 'high'"):
        shop.search("red", effort="high")


def test_k_above_the_number_of_items_returns_each_item_once(shop):
    assert sorted(ids(shop.search("red", k=1000))) == sorted(COLORS)


def test_empty_catalog_has_no_hits(tmp_path):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        assert catalog.search(vector=[1.0, 2.0]) == []
        assert catalog.search(vector=[1.0, 2.0], where={"a": 1}) == []
        assert len(catalog) == 0


@pytest.mark.parametrize("target", ["images", "captions", "items"])
def test_search_of_an_empty_catalog_neither_loads_nor_records_an_encoder(tmp_path, monkeypatch, target):
    monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", None)
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        requests = [SearchRequest(target=target, **part) for part in ({"text": "red"}, {"vector": [1.0, 2.0]})]
        assert catalog.search_many(requests) == [[], []]
        assert (
            catalog.search("red", image=b"none is looked at", target=target)
            == catalog.search("red", mode="hybrid")
            == []
        )
        assert (catalog.info()["encoder"], catalog.dimension) == (None, None)
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        assert catalog.search("red", target=target) == []
        assert catalog.info()["encoder"] is None
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder(name="fake/two", fingerprint="ffff")) as catalog:
        catalog.upsert([{"id": "a", "captions": ["red"], "image_vectors": np.eye(DIMENSION)[:1]}])
        assert catalog.info()["encoder"] == "fake/two"
        assert ids(catalog.search("red", target=target)) == ["a"]


def test_encoder_loaded_over_an_empty_catalog_is_not_used_for_vectors_imported_later(tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", lambda name, **_: loads.append(name) or FakeEncoder())
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        assert catalog.encoder.name == "fake/one"
        catalog.upsert([{"id": "a", "image_vectors": np.eye(DIMENSION)[:1]}])
        assert (catalog.info()["encoder"], loads) == (None, ["starter"])
        with pytest.raises(CatalogError, match="no encoder yet, only vectors"):
            catalog.search("red")
    with Catalog.open(tmp_path / "d", create=True) as catalog:
        assert catalog.encoder.name == "fake/one"
        catalog.upsert([{"id": "a", "images": [picture_of("red")]}])
        assert ids(catalog.search("red")) == ["a"]
        assert (catalog.info()["encoder"], loads) == ("fake/one", ["starter", "starter"])
    with (
        Catalog.open(tmp_path / "e", create=True) as catalog,
        Catalog.open(tmp_path / "e", encoder=FakeEncoder(name="fake/two", fingerprint="ffff")) as other,
    ):
        assert catalog.encoder.name == "fake/one"
        other.upsert([{"id": "a", "images": [picture_of("red")]}])
        monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", lambda *_, **__: other.encoder)
        assert catalog.search("red")[0].id == "a"
        assert catalog.encoder is other.encoder


def test_items_with_equal_images_are_all_hits_and_an_equal_caption_is_one_hit(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    encoder = FakeEncoder()
    with Catalog.open(tmp_path / "c", encoder=encoder) as catalog:
        catalog.upsert(
            {"id": name, "images": [tmp_path / picture], "captions": ["the same"], "attributes": {"n": number}}
            for number, (name, picture) in enumerate([("one", "a.png"), ("two", "b.png"), ("three", "a.png")])
        )
        assert (encoder.images, encoder.texts) == (1, ["the same"])
        assert ids(catalog.search("red", k=10)) == ["one", "two", "three"]
        assert ids(catalog.search("red", k=2)) == ["one", "two"]
        assert ids(catalog.search("red", where={"n": 1})) == ["two"]
        assert ids(catalog.search("the same", target="captions", k=10)) == ["one"]
        assert ids(catalog.search("the same", target="captions", where={"n": {"$gt": 0}})) == ["two"]
        assert ids(catalog.search(like="one", k=10)) == ["two", "three"]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 60), limit=st.integers(0, 45))
def test_search_equals_a_linear_scan_with_filters_and_changes(tmp_path_factory, *, seed, k, limit):
    generator = np.random.default_rng(seed)
    items = with_captions(random_items(generator, 40), generator)
    with Catalog.open(tmp_path_factory.mktemp("c"), create=True) as catalog:
        catalog.upsert(items)
        catalog.search(vector=items[0]["image_vectors"][0])  # from here on this object follows changes
        catalog.delete([item["id"] for item in items[5:15]])
        changed = with_captions(random_items(generator, 3), generator)
        catalog.upsert(changed)
        items = [*changed, *items[3:5], *items[15:]]
        query = unit_rows(generator.normal(size=(1, 6)))[0]
        expected = best_images([item for item in items if item["attributes"]["number"] < limit], query, k)
        hits = catalog.search(vector=query, k=k, where={"number": {"$lt": limit}})
        assert ids(hits) == [name for name, _ in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-6)
        assert ids(catalog.search(vector=query, k=k)) == [name for name, _ in best_images(items, query, k)]
        captions = {
            (item["id"], text): float(vector @ query)
            for item in items
            for text, vector in zip(item["captions"], item["caption_vectors"], strict=True)
        }
        found = catalog.search(vector=query, k=k, target="captions")
        assert [(hit.id, hit.caption) for hit in found] == sorted(captions, key=lambda key: -captions[key])[:k]


def test_item_with_many_images_does_not_hide_other_items(tmp_path):
    near = unit_rows([[1, 0.001 * number] for number in range(50)])
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "wide", "image_vectors": near}])
        catalog.upsert([{"id": f"far {number}", "image_vectors": [[0.5, 1 + number]]} for number in range(5)])
        assert ids(catalog.search(vector=[1, 0], k=6)) == ["wide", *(f"far {number}" for number in range(5))]


# --- the life of a catalog


def test_reader_sees_each_committed_change_without_a_lock(shop, tmp_path):
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        row = FakeEncoder().encode_texts(["blue"])[0]
        assert ids(reader.search(vector=row, k=1)) == ["blue"]
        shop.delete(["blue"])
        assert "blue" not in ids(reader.search(vector=row, k=10))
        shop.upsert([{"id": "again", "images": [tmp_path / "blue.png"]}])
        assert ids(reader.search(vector=row, k=1)) == ["again"]
        with pytest.raises(CatalogError, match="reading only"):
            reader.delete(["again"])
        with shop._writer.locked():
            assert ids(reader.search(vector=row, k=1)) == ["again"]


def test_second_writer_gets_an_error_that_names_the_first(shop, tmp_path):
    with (
        Catalog.open(tmp_path / "c") as second,
        shop._writer.locked(),
        pytest.raises(CatalogLockedError, match="being written by this process"),
    ):
        second.delete(["red"])


def test_reader_follows_compactions_of_another_process(tmp_path):
    generator = np.random.default_rng(1)
    items = random_items(generator, 60, images=1)
    query = unit_rows(generator.normal(size=(1, 6)))[0]
    with Catalog.open(tmp_path / "c", create=True) as writer, Catalog.open(tmp_path / "c", read_only=True) as reader:
        writer.upsert(items)
        assert ids(reader.search(vector=query, k=5)) == [name for name, _ in best_images(items, query, 5)]
        writer.delete([item["id"] for item in items[:30]])
        assert [path.name for path in (tmp_path / "c").glob("images-*.f32")] == ["images-2.f32"]
        assert (tmp_path / "c" / "images-2.f32").stat().st_size == 30 * 6 * 4
        expected = [name for name, _ in best_images(items[30:], query, 5)]
        assert ids(reader.search(vector=query, k=5)) == ids(writer.search(vector=query, k=5)) == expected


def test_concurrent_searches_never_see_a_partial_change(tmp_path):
    """An item's two images change together: a search finds both of one version."""
    axes = np.eye(6)

    def version(number):
        return {
            "id": "it",
            "image_vectors": [axes[number % 6], axes[(number + 1) % 6]],
            "attributes": {"version": number},
        }

    failures = []
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([version(0), {"id": "other", "image_vectors": [[1.0] * 6]}])
        done = threading.Event()

        def look():
            while not done.is_set():
                for hit in catalog.search(vector=axes[2], k=2):
                    number = hit.attributes.get("version")
                    right = 1.0 if number is not None and 2 in (number % 6, (number + 1) % 6) else None
                    if hit.id == "it" and (hit.score == pytest.approx(1)) != (right is not None):
                        failures.append((number, hit.score))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(60):
            catalog.upsert([version(number)])
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.fixture
def compacted(tmp_path):
    """A catalog, and a function by which another process changes an item until a compaction takes a file away."""
    other = {"id": "other", "image_vectors": [[1.0, 1.0]], "captions": ["other"], "caption_vectors": [[1.0, 0.0]]}
    numbers = itertools.count(1)
    with Catalog.open(tmp_path / "c", create=True) as reader, Catalog.open(tmp_path / "c") as writer:

        def compact():
            before = set(tmp_path.glob("c/images-*.f32"))
            while before & set(tmp_path.glob("c/images-*.f32")):
                writer.upsert([{"id": "it", "image_vectors": [[1.0, next(numbers)]]}])

        writer.upsert([{"id": "it", "image_vectors": [[1.0, 0.0]]}, other])
        yield reader, compact


def test_search_retries_while_compactions_remove_the_vectors(compacted, monkeypatch):
    """Vectors that are compacted away between reading the records and mapping the file are not missing."""
    reader, compact = compacted
    before, times = side.map_rows, iter(range(6))

    def late(path, **facts):
        if next(times, None) is not None:
            compact()
        return before(path, **facts)

    monkeypatch.setattr(side, "map_rows", late)
    assert {hit.id for hit in reader.search(vector=[1.0, 0.0])} == {"it", "other"}
    assert next(times, None) is None


@pytest.mark.parametrize("target", ["images", "captions", "items"])
def test_search_like_an_item_keeps_its_vectors_while_a_compaction_removes_the_file(compacted, monkeypatch, target):
    reader, compact = compacted
    before = single.Search._mix_vectors

    def late(*given):
        compact()
        return before(*given)

    monkeypatch.setattr(single.Search, "_mix_vectors", late)
    assert [hit.id for hit in reader.search(like="it", target=target)] == ["other"]


def test_writing_threads_wait_for_each_other(tmp_path):
    with Catalog.open(tmp_path / "c", create=True) as catalog:

        def write(start):
            for number in range(start, start + 15):
                catalog.upsert([{"id": str(number), "image_vectors": [[1.0, number]]}])

        threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(catalog) == 30


def test_catalog_can_be_moved_together_with_its_images(tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "one" / "a.png")
    with Catalog.open(tmp_path / "one" / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert([{"id": "a", "images": [tmp_path / "one" / "a.png"]}])
    (tmp_path / "one").rename(tmp_path / "two")
    with Catalog.open(tmp_path / "two" / "c", read_only=True) as catalog:
        row = FakeEncoder().encode_texts(["red"])[0]
        assert catalog.search(vector=row)[0].image == str(tmp_path / "two" / "a.png")


# --- opening


def test_opening_a_folder_without_a_catalog_raises_and_creates_nothing(tmp_path):
    with pytest.raises(CatalogError, match="no catalog at"):
        Catalog.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").touch()
    with pytest.raises(CatalogFormatError, match="is not a catalog"):
        Catalog.open(tmp_path / "photos")
    with pytest.raises(CatalogFormatError, match="not a catalog and not empty"):
        Catalog.open(tmp_path / "photos", encoder=FakeEncoder())
    with pytest.raises(CatalogError, match="no catalog at"):
        Catalog.open(tmp_path / "none", encoder=FakeEncoder(), read_only=True)
    assert not is_catalog(tmp_path / "photos")


@pytest.mark.usefixtures("shop")
def test_other_encoder_raises_an_error_that_names_both(tmp_path):
    with pytest.raises(CatalogError, match=r"built with the encoder fake/one, not with fake/two \(image towers"):
        Catalog.open(tmp_path / "c", encoder=FakeEncoder(name="fake/two", fingerprint="ffff"))
    other_texts = FakeEncoder(name="fake/two")
    other_texts.text_fingerprint = "another"
    with pytest.raises(CatalogError, match=r"fake/one.*fake/two.*text towers"):
        Catalog.open(tmp_path / "c", encoder=other_texts)
    wide = FakeEncoder(name="fake/wide")
    wide.dimension = 512
    with pytest.raises(CatalogError, match="24 and 512 dimensions"):
        Catalog.open(tmp_path / "c", encoder=wide)
    Catalog.open(tmp_path / "c", encoder=FakeEncoder(name="another name, same weights")).close()


@pytest.mark.usefixtures("shop")
def test_encoder_is_loaded_at_the_first_query_that_needs_it(tmp_path):
    loads = []

    def load():
        loads.append(1)
        return FakeEncoder()

    with Catalog.open(tmp_path / "c", encoder=load, read_only=True) as catalog:
        catalog.search(like="red")
        assert loads == []
        assert ids(catalog.search("red", k=1)) == ["red"]
        catalog.search("blue")
        assert loads == [1]


def test_encoder_that_does_not_load_is_named_in_the_error(tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder(name="/no/such/run")) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(DIMENSION)[:1]}])
    with (
        Catalog.open(tmp_path / "c") as catalog,
        pytest.raises(CatalogError, match="built with the encoder /no/such/run, which does not load"),
    ):
        catalog.search("red")


@pytest.mark.usefixtures("shop")
def test_text_query_checks_only_the_fingerprint_of_the_text_tower(tmp_path):
    changed = FakeEncoder()
    changed.image_fingerprint = "another"
    with Catalog.open(tmp_path / "c", encoder=lambda: changed, read_only=True) as catalog:
        assert ids(catalog.search("red", k=1)) == ["red"]
        with pytest.raises(CatalogError, match="image towers"):
            catalog.search(image=tmp_path / "red.png")


def test_imported_vectors_adopt_the_first_encoder_of_their_dimension(tmp_path):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(DIMENSION)[:1]}])
        assert (catalog.dimension, catalog.info()["encoder"]) == (DIMENSION, None)
        with pytest.raises(CatalogError, match="no encoder yet"):
            catalog.search("red")
        with pytest.raises(CatalogError, match=r"Item 'b'.*dimension 2, and 24"):
            catalog.upsert([{"id": "b", "image_vectors": [[1, 0]]}])
        assert len(catalog) == 1
    wide = FakeEncoder()
    wide.dimension = 512
    with pytest.raises(CatalogError, match="24 dimensions"):
        Catalog.open(tmp_path / "c", encoder=wide)
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        assert ids(catalog.search("red")) == ["a"]
        assert catalog.info()["encoder"] is None
        catalog.upsert([{"id": "b", "image_vectors": np.eye(DIMENSION)[1:2]}])
        assert catalog.info()["encoder"] == "fake/one"


def test_info_reports_counts_encoder_and_indexes(shop):
    info = shop.info()
    assert {name: info[name] for name in ("items", "images", "captions", "encoder", "dimension", "format")} == {
        "items": 5,
        "images": 5,
        "captions": 5,
        "encoder": "fake/one",
        "dimension": DIMENSION,
        "format": 2,
    }
    assert info["attributes"] == ["color", "price"]
    assert "images: exact" in info["index"]
    assert info["bytes"] > 0


def test_info_bytes_include_stored_pictures(shop, tmp_path):
    picture = (tmp_path / "red.png").read_bytes()
    before = shop.info()["bytes"]
    kept = tmp_path / "c" / "pictures" / "ab" / "abc"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(picture)
    (kept.parent / "gone").symlink_to("nothing")  # as a file that is deleted while they are counted
    assert shop.info()["bytes"] == before + len(picture)


@pytest.mark.usefixtures("shop")
def test_vector_search_imports_neither_torch_nor_faiss(tmp_path):
    code = (
        "import sys; from retrieval import Catalog\n"
        f"hits = Catalog.open({str(tmp_path / 'c')!r}, read_only=True).search(vector=[1.0] * {DIMENSION}, k=1)\n"
        "assert len(hits) == 1; assert not {'torch', 'faiss', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- as an evaluation asks


def test_served_sides_return_slots_through_the_index_and_exactly(shop, tmp_path):
    shop.delete(["green"])
    served, encoder = shop.served, FakeEncoder()
    slots = served.images.slots_of([content_hash((tmp_path / f"{color}.png").read_bytes()) for color in COLORS])
    assert slots.tolist() == [0, -1, 2, 3, 4]
    queries = encoder.encode_texts(["blue", "black"])
    assert served.images.exact(queries, 1).ids.ravel().tolist() == [2, 4]
    assert served.images.search(queries, 1).ids.ravel().tolist() == [2, 4]
    assert served.captions.slots_of(["a red square", "a green square"]).tolist() == [0, -1]
    assert served.captions.kind == "exact"
    with Catalog.open(tmp_path / "empty", create=True) as empty:
        assert (empty.served.images, empty.served.captions) == (None, None)


# --- indexes


@pytest.fixture(scope="module")
def many():
    generator = np.random.default_rng(3)
    return random_items(generator, 1500, dimension=16, images=1)


@pytest.mark.faiss
@pytest.mark.parametrize("damage", ["delete", "truncate", "garbage"])
def test_deleted_or_damaged_index_is_rebuilt_with_equal_hits(tmp_path, many, *, damage, pairs_of_nothing):
    query = unit_rows(np.random.default_rng(4).normal(size=(1, 16)))[0]
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(many)
        catalog.build(pairs_of_nothing, index="hnsw")
        before = catalog.search(vector=query, k=10, effort=1.0)
    (saved,) = (tmp_path / "c").glob("images-*.faiss")
    if damage == "delete":
        saved.unlink()
    else:
        saved.write_bytes(saved.read_bytes()[:500] if damage == "truncate" else b"\x00garbage" * 1000)
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        assert ids(reader.search(vector=query, k=10)) == [name for name, _ in best_images(many, query, 10)]
        assert reader.served.images.kind == "exact"
        images = reader._sides["images"]
        assert not images.updater.is_behind(images.index, images._state)
    with Catalog.open(tmp_path / "c") as catalog:
        assert catalog.search(vector=query, k=10, effort=1.0) == before
        assert catalog.served.images.kind == "hnsw"
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        reader.search(vector=query)
        assert reader.served.images.kind == "hnsw"


@pytest.fixture
def pairs_of_nothing(tmp_path):
    (tmp_path / "nothing").mkdir()
    return Pairs(source=tmp_path / "nothing", root=tmp_path / "nothing", layout="folder", pairs=())


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_saved_index_is_extended_with_later_vectors(tmp_path, many, *, kind, pairs_of_nothing):
    generator = np.random.default_rng(5)
    queries = unit_rows(generator.normal(size=(20, 16)))
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(many[:1000])
        catalog.build(pairs_of_nothing, index=kind)
        catalog.upsert(many[1000:])
        catalog.delete([item["id"] for item in many[:100]])
        served = catalog.served.images
        assert served.kind == kind
        here = served.search(queries, 10).ids
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        served = reader.served.images
        there, true = served.search(queries, 10).ids, served.exact(queries, 10).ids
        assert there.min() >= 100
        assert recall(there, true) > 0.9
        assert recall(here, true) > 0.9
        for where in ({"number": {"$gte": 1200}}, {"number": 1400}):
            hits = reader.search(vector=queries[0], k=5, where=where)
            allowed = [item for item in many if item["attributes"]["number"] >= 1200]
            allowed = allowed if where["number"] != 1400 else [many[1400]]
            assert ids(hits) == [name for name, _ in best_images(allowed, queries[0], 5)]


@pytest.mark.faiss
def test_changing_the_index_kind_replaces_the_saved_index(tmp_path, many, pairs_of_nothing):
    query = many[7]["image_vectors"]
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(many)
        for kind in ("hnsw", "ivf", "exact", "auto"):
            catalog.build(pairs_of_nothing, index=kind)
            with Catalog.open(tmp_path / "c", read_only=True) as reader:
                for one in (catalog, reader):
                    assert ids(one.search(vector=query, k=1)) == ["item 7"]
                    assert one.served.images.kind == ("exact" if kind == "auto" else kind)
            saved = list((tmp_path / "c").glob("*.faiss"))
            assert len(saved) == (0 if kind in ("exact", "auto") else 1)
        catalog.build(pairs_of_nothing, index="hnsw")
        with catalog._database.writing() as records:  # as a kill would leave it: another kind chosen, the old one saved
            records.slots.put_side("images", replace(records.slots.side("images"), kind="ivf"))
        assert catalog.served.images.kind == "ivf"
    with Catalog.open(tmp_path / "c", read_only=True) as reader:
        assert reader.served.images.kind == "ivf"


@pytest.fixture
def without_index(tmp_path, many, pairs_of_nothing):
    """A folder of a catalog whose index of kind hnsw was deleted."""
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(many)
        catalog.build(pairs_of_nothing, index="hnsw")
    (saved,) = (tmp_path / "c").glob("images-*.faiss")
    saved.unlink()
    return tmp_path / "c"


@pytest.fixture
def late(monkeypatch):
    """Set the first event once an hnsw index is built, and return it only after the second event is set."""
    begun, may_end = threading.Event(), threading.Event()
    build = VectorIndex.build

    def built(rows, *, spec, **options):
        made = build(rows, spec=spec, **options)
        if spec == "hnsw":
            begun.set()
            assert may_end.wait(60)
        return made

    monkeypatch.setattr(index_updater.VectorIndex, "build", built)
    return begun, may_end


@pytest.mark.faiss
def test_searches_and_changes_continue_while_an_index_is_built(without_index, many, late):
    begun, may_end = late
    with Catalog.open(without_index) as catalog:
        assert ids(catalog.search(vector=many[7]["image_vectors"], k=1)) == ["item 7"]
        assert begun.wait(60)
        catalog.delete(["item 7"])
        catalog.upsert([{"id": "late", "image_vectors": many[7]["image_vectors"]}])
        assert ids(catalog.search(vector=many[7]["image_vectors"], k=1)) == ["late"]
        may_end.set()
        served = catalog.served.images
        assert served.kind == "hnsw"
        assert ids(catalog.search(vector=many[7]["image_vectors"], k=1)) == ["late"]
        assert ids(catalog.search(vector=many[8]["image_vectors"], k=1)) == ["item 8"]
    assert list(without_index.glob("images-*.faiss"))


@pytest.mark.faiss
def test_index_built_during_a_compaction_is_discarded(without_index, many, late):
    begun, may_end = late
    with Catalog.open(without_index) as catalog:
        catalog.search(vector=many[0]["image_vectors"])
        assert begun.wait(60)
        deleting = threading.Thread(target=catalog.delete, args=([item["id"] for item in many[:600]],))
        deleting.start()
        while not list(without_index.glob("images-2.f32")):
            assert deleting.is_alive()
        for number in (600, 999):
            assert ids(catalog.search(vector=many[number]["image_vectors"], k=1)) == [f"item {number}"]
        may_end.set()
        deleting.join()
        assert catalog.served.images.kind == "hnsw"
        for number in (600, 999):
            assert ids(catalog.search(vector=many[number]["image_vectors"], k=1)) == [f"item {number}"]
    assert [path.name for path in without_index.glob("images-*.faiss")] == ["images-2.faiss"]


@pytest.mark.faiss
def test_reader_leaves_a_missing_index_to_the_writing_process(without_index, many):
    query = many[7]["image_vectors"]
    with Catalog.open(without_index) as writer, Catalog.open(without_index) as other:
        with writer._writer.locked():
            assert ids(other.search(vector=query, k=1)) == ["item 7"]
            other._sides["images"].updater.wait()
            assert not list(without_index.glob("images-*.faiss"))
        writer.served  # noqa: B018 - builds it
        (saved,) = without_index.glob("images-*.faiss")
        before = saved.stat()
        assert ids(other.search(vector=query, k=1)) == ["item 7"]
        other._sides["images"].updater.wait()
        assert other._sides["images"].index.spec.kind == "hnsw"
        assert (saved.stat().st_ino, saved.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.faiss
def test_index_that_cannot_be_built_is_logged_and_search_stays_exact(without_index, many, monkeypatch, caplog):
    build = VectorIndex.build

    def failing(rows, *, spec, **options):
        if spec == "hnsw":
            raise DeviceError("there is no FAISS")
        return build(rows, spec=spec, **options)

    monkeypatch.setattr(index_updater.VectorIndex, "build", failing)
    with Catalog.open(without_index) as catalog:
        for _ in range(3):
            assert ids(catalog.search(vector=many[7]["image_vectors"], k=1)) == ["item 7"]
            catalog._sides["images"].updater.wait()
        assert catalog.upsert(random_items(np.random.default_rng(6), 100, dimension=16, images=1)[:100]).changed == 100
    line, other = caplog.messages
    assert "cannot build the index of the images: there is no FAISS" in line
    assert "The changes are committed, but the catalog could not be maintained: there is no FAISS" in other


@pytest.mark.faiss
def test_new_rows_join_the_structure_in_the_background(tmp_path, many, monkeypatch, pairs_of_nothing):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert(many[:1000])
        catalog.build(pairs_of_nothing, index="hnsw")
        catalog.search(vector=many[0]["image_vectors"])
        monkeypatch.setattr(vector_index, "MAX_UNINDEXED", 20)
        monkeypatch.setattr(catalog._writer, "_maintain_after", lambda *_: None)
        catalog.upsert(many[1000:1030])
        index = catalog._sides["images"].index
        assert ids(catalog.search(vector=many[1020]["image_vectors"], k=1)) == ["item 1020"]
        catalog._sides["images"].updater.wait()
        assert (index.slots, index.needs_maintenance) == (1030, False)
        assert ids(catalog.search(vector=many[1020]["image_vectors"], k=1)) == ["item 1020"]


@pytest.mark.faiss
def test_auto_index_fits_half_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("index.spec.os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 << 20}.__getitem__)
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": np.eye(512)[:1]}])
        with catalog._database.reading() as records:
            few, many, most = (
                maintenance.wanted_kind(records.state(), SideState(rows=count), device="cpu")
                for count in (1, 1_000_000, 60_000_000)
            )
    assert [few[0], many[0], most[0]] == ["exact", "hnsw", "ivfpq"]
    assert most[1].endswith("of 8,192 MiB")


def recall(found, true):
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


def test_oracle_of_this_file_equals_exact_search(many):
    rows = np.concatenate([item["image_vectors"] for item in many])
    query = unit_rows(np.random.default_rng(6).normal(size=(1, 16)))
    neighbors = exact_search(query, rows, 10)
    assert [f"item {number}" for number in neighbors.ids[0]] == [name for name, _ in best_images(many, query[0], 10)]


# --- pictures inside containers, and folders that cannot be written


def test_image_in_a_tar_shard_is_found_and_opened(tmp_path):
    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for color in COLORS:
            buffer = BytesIO()
            Image.new("RGB", (16, 16), color).save(buffer, "PNG")
            for name, data in ((f"{color}.png", buffer.getvalue()), (f"{color}.txt", f"a {color} thing".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        assert catalog.build(read_pairs(tmp_path / "shard-000.tar")).added == 5
        assert catalog.build(read_pairs(tmp_path / "shard-000.tar")).unchanged == 5
        hit = catalog.search("blue", k=1)[0]
        assert hit.image == str(tmp_path / "shard-000.tar" / "blue.png")
        assert open_image(catalog.image_source(hit.id, hit.position)).getpixel((0, 0)) == (0, 0, 255)
        assert catalog.image_source(hit.id, 1) is None
        catalog.delete([hit.id])
        assert catalog.image_source(hit.id) is None


@pytest.mark.parametrize("cut", [True, False])
def test_missing_vectors_raise_an_error_that_names_the_file(tmp_path, cut):
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": str(number), "image_vectors": [[1.0, number]]} for number in range(9)])
    path = tmp_path / "c" / "images-1.f32"
    if cut:
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.unlink()
    with Catalog.open(tmp_path / "c") as catalog:
        with pytest.raises(CatalogError, match=r"images-1\.f32"):
            catalog.search(vector=[1.0, 0.0])
        with pytest.raises(CatalogError, match=r"images-1\.f32|No such file"):
            catalog.upsert([{"id": "more", "image_vectors": [[1.0, 7.5]]}])


def test_catalog_in_a_read_only_folder_is_searched(tmp_path, monkeypatch):
    """On read-only media SQLite has no place for its log's index; a closed catalog has no log."""
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": [[1.0, 0.0]]}])
    before = sorted(path.name for path in (tmp_path / "c").iterdir())
    monkeypatch.setattr("retrieval.records.database.os.access", lambda _path, _mode: False)
    with Catalog.open(tmp_path / "c", read_only=True) as catalog:
        assert ids(catalog.search(vector=[1.0, 0.0])) == ["a"]
        assert sorted(path.name for path in (tmp_path / "c").iterdir()) == before
    with Catalog.open(tmp_path / "c") as catalog, pytest.raises(CatalogError, match="readonly"):
        catalog.delete(["a"])


def test_reader_without_write_access_follows_each_change(tmp_path, monkeypatch):
    def answers(reader, expected):
        with monkeypatch.context() as patched:
            patched.setattr("retrieval.records.database.os.access", lambda _path, _mode: False)
            assert ids(reader.search(vector=[1.0, 0.0])) == expected

    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": [[1.0, 0.0]]}])
    monkeypatch.setattr("retrieval.records.database.os.access", lambda _path, _mode: False)
    reader = Catalog.open(tmp_path / "c", read_only=True)
    monkeypatch.undo()
    with reader:
        answers(reader, ["a"])
        with Catalog.open(tmp_path / "c") as writer:
            writer.upsert([{"id": "b", "image_vectors": [[1.0, 0.1]]}])
        answers(reader, ["a", "b"])
        with Catalog.open(tmp_path / "c") as writer:
            writer.delete(["a"])
            answers(reader, ["b"])
            writer.upsert([{"id": "c", "image_vectors": [[1.0, 0.2]]}])
            answers(reader, ["b", "c"])
        answers(reader, ["b", "c"])


def test_database_error_while_images_are_read_fails_no_image(tmp_path, monkeypatch):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")

    def failing(*_, **__):
        raise CatalogError("the disk is failing")

    monkeypatch.setattr("retrieval.records.slots.Slots.find_vectors", failing)
    with (
        Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog,
        pytest.raises(CatalogError, match="disk is failing"),
    ):
        catalog.upsert([{"id": "a", "images": [tmp_path / "a.png"]}])


def test_catalog_refuses_use_after_a_fork(tmp_path):
    """Locks that another thread held at the fork would never be released in the child."""
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": [[1.0, 0.0]]}])
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            told = []
            for use in (
                lambda: catalog.search(vector=[1.0, 0.0]),
                lambda: catalog.get(["a"]),
                lambda: catalog.delete(["a"]),
            ):
                try:
                    use()
                except CatalogError as error:
                    told.append("opened in the process" in str(error))
            os.write(writer, str(told).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"[True, True, True]"
        assert catalog.search(vector=[1.0, 0.0])[0].id == "a"


def test_errors_distinguish_an_empty_folder_from_another_folder(tmp_path):
    with pytest.raises(CatalogError, match=r"is empty\. Build a catalog there first"):
        Catalog.open(tmp_path)
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(CatalogFormatError, match="is not a catalog"):
        Catalog.open(tmp_path)
