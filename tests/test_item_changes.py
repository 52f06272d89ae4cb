"""Get, patch and put items, with images as bytes: a patch changes only the named fields and their vectors."""

from io import BytesIO

import numpy as np
import pytest
from fake_encoder import DIMENSION, FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval.catalog import Catalog
from retrieval.catalog.write.plan import merge_patch
from retrieval.errors import CatalogError, QueryError
from retrieval.records.vector_store import map_rows


def picture(color):
    file = BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shop(tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert(
            [
                {
                    "id": color,
                    "images": [picture(color)],
                    "captions": [f"a {color} square", color],
                    "attributes": {"price": 5, "size": {"eu": 40, "us": 7}},
                }
                for color in ("red", "green", "blue")
            ]
        )
        yield catalog


def test_image_bytes_are_stored_in_the_catalog_and_move_with_it(shop, tmp_path):
    hit = shop.search("red", k=1)[0]
    assert hit.id == "red"
    assert Image.open(hit.image).getpixel((0, 0)) == (255, 0, 0)
    assert hit.image.startswith(str(tmp_path / "c" / "pictures"))
    shop.close()
    (tmp_path / "c").rename(tmp_path / "moved")
    with Catalog.open(tmp_path / "moved", encoder=FakeEncoder()) as moved:
        assert Image.open(moved.search("red", k=1)[0].image).getpixel((0, 0)) == (255, 0, 0)
        assert moved.upsert([{"id": "again", "images": [picture("red")]}]).added == 1
        assert moved.encoder.images == 0


def test_bytes_that_are_no_image_are_refused_alone_and_leave_no_file(shop, tmp_path):
    before = sorted((tmp_path / "c" / "pictures").rglob("*"))
    report = shop.upsert([{"id": "bad", "images": [b"<svg/>"]}, {"id": "good", "images": [picture("red")]}])
    assert (report.added, [one.name for one in report.skipped]) == (1, ["bad"])
    assert sorted((tmp_path / "c" / "pictures").rglob("*")) == before


def test_stored_images_are_deleted_with_their_last_item(shop, tmp_path):
    shop.upsert([{"id": "red too", "images": [picture("red")]}])
    shop.delete(["red", "green"])
    kept = [Image.open(path).getpixel((0, 0)) for path in (tmp_path / "c" / "pictures").glob("*/*")]
    assert sorted(kept) == [(0, 0, 255), (255, 0, 0)]


def test_get_returns_items_as_they_were_put(shop):
    found = shop.get(["blue", "unknown"])
    assert list(found) == ["blue"]
    assert found["blue"]["captions"] == ["a blue square", "blue"]
    assert found["blue"]["attributes"] == {"price": 5, "size": {"eu": 40, "us": 7}}
    assert Image.open(found["blue"]["images"][0]).getpixel((0, 0)) == (0, 0, 255)


def test_ids_are_paged_in_code_point_order(shop):
    shop.upsert({"id": name, "images": [picture("white")]} for name in ("Z", "é", "10", "9"))
    every = ["10", "9", "Z", "blue", "green", "red", "é"]
    assert shop.ids() == every
    assert shop.ids(limit=3) == every[:3]
    assert shop.ids(after="Z", limit=3) == every[3:6]
    assert shop.ids(after="a") == every[3:]  # which need not be there
    assert shop.ids(after="é") == []
    with pytest.raises(QueryError, match="not 0"):
        shop.ids(limit=0)


def test_items_round_trip_with_their_vectors_to_another_catalog(shop, tmp_path):
    shop.upsert([{"id": "two", "images": [picture("white"), picture("black")]}])
    shop.delete(["red"])  # which compacts
    two = shop.get(["two"], vectors=True)["two"]
    np.testing.assert_allclose(two["image_vectors"], shop.encoder.encode_images([*opened(two)]), atol=1e-6)
    assert two["caption_vectors"].shape == (0, DIMENSION)
    found = shop.get(shop.ids(), vectors=True)
    np.testing.assert_allclose(found["blue"]["caption_vectors"], shop.encoder.encode_texts(["a blue square", "blue"]))
    with Catalog.open(tmp_path / "other", create=True) as other:
        assert other.upsert(found.values()).added == 3
        again = other.get(other.ids(), vectors=True)
        assert again["two"]["images"] == two["images"]
        for name, item in found.items():
            np.testing.assert_allclose(again[name]["image_vectors"], item["image_vectors"], atol=1e-7)
            np.testing.assert_allclose(again[name]["caption_vectors"], item["caption_vectors"], atol=1e-7)


def opened(item):
    return [Image.open(path) for path in item["images"]]


def test_get_retries_after_a_compaction_and_reports_missing_vectors(shop, monkeypatch, tmp_path):
    begun = []

    def compacted_first(*args, **options):
        if not begun:
            begun.append(True)
            raise FileNotFoundError(2, "gone", "images-1.f32")
        return map_rows(*args, **options)

    monkeypatch.setattr("retrieval.catalog.search.hits.map_rows", compacted_first)
    assert shop.get(["red"], vectors=True)["red"]["image_vectors"].shape == (1, DIMENSION)
    for path in (tmp_path / "c").glob("images-*.f32"):
        path.unlink()
    with pytest.raises(CatalogError, match=r"images-.*are missing"):
        shop.get(["red"], vectors=True)


def test_attribute_patch_embeds_nothing_and_is_searchable_at_once(shop):
    shop.encoder.texts.clear()
    images = shop.encoder.images
    report = shop.patch([{"id": "red", "attributes": {"price": 9, "size": {"us": None}, "new": True}}])
    assert (report.changed, report.skipped) == (1, ())
    assert shop.get(["red"])["red"]["attributes"] == {"price": 9, "size": {"eu": 40}, "new": True}
    assert [hit.id for hit in shop.search(where={"price": {"$gt": 5}})] == ["red"]
    assert shop.get(["red"])["red"]["captions"] == ["a red square", "red"]
    assert (shop.encoder.texts, shop.encoder.images) == ([], images)
    assert shop.patch([{"id": "red", "attributes": {"price": 9}}]).unchanged == 1


def test_patch_embeds_only_the_changed_captions_or_images(shop):
    shop.encoder.texts.clear()
    images = shop.encoder.images
    shop.patch([{"id": "red", "captions": ["a white square"]}])
    assert (shop.encoder.texts, shop.encoder.images) == (["a white square"], images)
    assert shop.search("white", target="captions", k=1)[0].id == "red"
    shop.patch([{"id": "red", "images": [picture("black")]}])
    assert shop.encoder.images == images + 1
    assert shop.search("black", mode="vectors", k=1)[0].id == "red"
    assert shop.get(["red"])["red"]["captions"] == ["a white square"]


def test_imported_vectors_survive_a_patch(tmp_path):
    rows = np.eye(DIMENSION, dtype=np.float32)
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": rows[:2], "captions": ["x"], "caption_vectors": rows[2:3]}])
        catalog.patch([{"id": "a", "attributes": {"n": 1}}])
        for row, target in ((0, "images"), (1, "images"), (2, "captions")):
            hit = catalog.search(vector=rows[row], target=target, k=1)[0]
            assert (hit.score, hit.attributes) == (1.0, {"n": 1})


def test_impossible_patches_are_skipped_and_malformed_ones_change_nothing(shop):
    report = shop.patch([{"id": "pink", "attributes": {}}, {"id": "blue", "attributes": {"price": 1}}])
    assert ([one.name for one in report.skipped], report.changed) == (["pink"], 1)
    for change, message in (
        ({"id": "red", "price": 3}, "unknown fields"),
        ({"attributes": {}}, "with the id"),
        ({"id": "red", "attributes": [1]}, "attributes must be a mapping"),
        ({"id": "red", "captions": "text"}, "captions must be a list"),
        ({"id": "red", "images": []}, "has no image"),
    ):
        with pytest.raises(CatalogError, match=message):
            shop.patch([{"id": "blue", "attributes": {"price": 77}}, change])
    with pytest.raises(CatalogError, match="Two changes"):
        shop.patch([{"id": "red"}, {"id": "red"}])
    assert shop.get(["blue"])["blue"]["attributes"]["price"] == 1


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [  # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_rfc_7396(old, change, new):
    assert merge_patch(old, change) == new


@given(json_values, json_values)
def test_merge_patch_is_idempotent(old, change):
    assert merge_patch(merge_patch(old, change), change) == merge_patch(old, change)
