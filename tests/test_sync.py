"""Build as a sync, upsert and delete: which items are added, changed, dropped and embedded, and which stay."""

import csv
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crashes import contents
from fake_encoder import DIMENSION, FakeEncoder
from PIL import Image
from tiny_models import write_tiny_model

from retrieval.catalog import Catalog, SyncReport
from retrieval.catalog.write import sync
from retrieval.encoder import load_encoder
from retrieval.errors import CatalogError, CatalogLockedError, ItemError
from retrieval.pairs import read_pairs

COLORS = ("red", "green", "blue", "white", "black")


def draw(path, color, *, size=16):
    Image.new("RGB", (size, size), color).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Five plain pictures, each with a file of two captions."""
    (tmp_path / "photos").mkdir()
    for color in COLORS:
        draw(tmp_path / "photos" / f"{color}.png", color)
        (tmp_path / "photos" / f"{color}.txt").write_text(f"a {color} square\n{color}\n")
    return tmp_path / "photos"


class Fixture:
    """A catalog beside the pictures, with an encoder that counts."""

    def __init__(self, folder):
        self.folder = folder
        self.encoder = FakeEncoder()
        self.catalog = Catalog.open(folder.parent / "c", encoder=self.encoder)

    def build(self, **options):
        """Build, and return the counts (added, changed, dropped, unchanged) and what was embedded."""
        images, texts = self.encoder.images, len(self.encoder.texts)
        report = self.catalog.build(read_pairs(self.folder), **options)
        counts = (report.added, report.changed, report.dropped, report.unchanged)
        return counts, (self.encoder.images - images, len(self.encoder.texts) - texts), report


@pytest.fixture
def shop(folder):
    fixture = Fixture(folder)
    yield fixture
    fixture.catalog.close()


# --- build


def test_build_adds_every_item_and_a_second_build_changes_nothing(shop):
    assert shop.build()[:2] == ((5, 0, 0, 0), (5, 10))
    before = (shop.folder.parent / "c" / "images-1.f32").stat().st_mtime_ns
    assert shop.build()[:2] == ((0, 0, 0, 5), (0, 0))
    assert (shop.folder.parent / "c" / "images-1.f32").stat().st_mtime_ns == before


def test_build_without_changes_reads_no_image(shop, monkeypatch):
    shop.build()
    monkeypatch.setattr("retrieval.images.sources.ImageSource.read", None)
    assert shop.build()[0] == (0, 0, 0, 5)


def test_build_adds_new_updates_changed_and_drops_missing_files(shop):
    shop.build()
    draw(shop.folder / "pink.png", "pink")
    draw(shop.folder / "red.png", "purple", size=20)
    (shop.folder / "blue.png").unlink()
    assert shop.build()[:2] == ((1, 1, 1, 3), (2, 0))
    assert {hit.id for hit in shop.catalog.search("red", k=9)} == {f"{color}.png" for color in (*COLORS, "pink")} - {
        "blue.png"
    }


def test_file_rewritten_with_equal_content_is_unchanged_and_not_embedded(shop):
    shop.build()
    os.utime(shop.folder / "red.png", ns=(1, 1))
    assert shop.build()[:2] == ((0, 0, 0, 5), (0, 0))
    with shop.catalog._database.reading() as records:
        assert records.items(["red.png"])["red.png"].images[0].modified == 1


def test_changed_caption_file_embeds_only_the_new_caption(shop):
    shop.build()
    (shop.folder / "red.txt").write_text("red\nscarlet, rather\na blue square\n")
    assert shop.build()[:2] == ((0, 1, 0, 4), (0, 1))
    hits = shop.catalog.search("scarlet, rather", target="captions", k=99)
    assert (hits[0].caption, hits[0].id) == ("scarlet, rather", "red.png")
    assert "a red square" not in [hit.caption for hit in hits]
    assert [hit.id for hit in hits if hit.caption == "a blue square"] == ["blue.png"]
    assert [len(captions) for _, _, captions in contents(shop.catalog).values()] == [2, 2, 2, 3, 2]


def test_renamed_image_is_a_new_item_and_reuses_its_vector(shop):
    shop.build()
    (shop.folder / "red.png").rename(shop.folder / "rouge.png")
    assert shop.build()[:2] == ((1, 0, 1, 4), (0, 0))
    assert shop.catalog.search("red", k=1)[0].id == "rouge.png"


def test_equal_images_and_captions_are_embedded_once(shop):
    for number in range(30):
        draw(shop.folder / f"more {number}.png", COLORS[number % 5])
        (shop.folder / f"more {number}.txt").write_text("the same text\n")
    assert shop.build()[:2] == ((35, 0, 0, 0), (5, 11))
    assert len(shop.catalog.search("red", k=99)) == 35


def test_restored_content_reuses_its_dead_vector(shop):
    shop.build()
    shop.catalog.delete(["red.png"])
    assert shop.build(restore=True)[:2] == ((1, 0, 0, 4), (0, 0))
    assert shop.catalog.search("red", k=1)[0].id == "red.png"


def test_unreadable_images_are_skipped_with_name_and_reason(shop):
    (shop.folder / "text.png").write_bytes(b"this is no picture")
    (shop.folder / "empty.jpg").touch()
    whole = draw(shop.folder / "cut.png", "pink", size=200).read_bytes()
    (shop.folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (shop.folder / "same cut.png").write_bytes(whole[: len(whole) // 2])
    counts, embedded, report = shop.build()
    assert (counts, embedded) == ((5, 0, 0, 0), (5, 10))
    assert sorted(one.name for one in report.skipped) == ["cut.png", "empty.jpg", "same cut.png", "text.png"]
    assert all(one.reason for one in report.skipped)
    assert shop.build()[0] == (0, 0, 0, 5)


def test_strict_build_stops_at_the_first_unreadable_image(shop):
    (shop.folder / "bad.png").write_bytes(b"this is no picture")
    with pytest.raises(CatalogError, match=r"bad\.png: is not an image"):
        shop.build(strict=True)


def test_item_whose_image_became_unreadable_is_dropped(shop):
    shop.build()
    (shop.folder / "red.png").write_bytes(b"this is no picture any more")
    counts, _, report = shop.build()
    assert counts == (0, 0, 1, 4)
    assert [one.name for one in report.skipped] == ["red.png"]


def test_build_drops_nothing_when_most_images_become_unreadable(shop):
    shop.build()
    for color in COLORS[:3]:
        (shop.folder / f"{color}.png").write_bytes(b"this is no picture any more")
    with pytest.raises(CatalogError, match="would drop 3 of the 5"):
        shop.build()
    assert len(shop.catalog) == 5
    assert shop.build(prune=True)[0] == (0, 0, 3, 2)


def test_build_drops_more_than_half_only_with_prune(shop):
    shop.build()
    for color in COLORS[:3]:
        (shop.folder / f"{color}.png").unlink()
    draw(shop.folder / "pink.png", "pink")
    with pytest.raises(CatalogError, match="would drop 3 of the 5 items of this source"):
        shop.build()
    assert len(shop.catalog) == 5, "refused before anything was done"
    assert shop.build(prune=True)[0] == (1, 0, 3, 2)


def test_build_drops_half_without_prune(shop):
    (shop.folder / "black.png").unlink()
    shop.build()
    for color in COLORS[:2]:
        (shop.folder / f"{color}.png").unlink()
    assert shop.build()[0] == (0, 0, 2, 2)


def test_build_drops_only_items_of_its_own_source(shop, tmp_path):
    shop.build()
    (tmp_path / "others").mkdir()
    draw(tmp_path / "others" / "pink.png", "pink")
    shop.catalog.upsert([{"id": "by hand", "images": [tmp_path / "others" / "pink.png"]}])
    report = shop.catalog.build(read_pairs(tmp_path / "others"))
    assert (report.added, report.dropped, len(shop.catalog)) == (1, 0, 7)
    (shop.folder / "red.png").unlink()
    assert shop.build()[0] == (0, 0, 1, 4)
    assert len(shop.catalog) == 6


def test_item_that_moved_to_another_source_is_dropped_with_that_source(shop, tmp_path):
    for name in ("one.csv", "two.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([["id", "image"], ["x", "photos/red.png"]])
    shop.catalog.build(read_pairs(tmp_path / "one.csv"))
    report = shop.catalog.build(read_pairs(tmp_path / "two.csv"))
    assert (report.added, report.changed, report.unchanged) == (0, 0, 1)
    with (tmp_path / "one.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image"], ["y", "photos/blue.png"]])
    report = shop.catalog.build(read_pairs(tmp_path / "one.csv"))
    assert (report.added, report.dropped, len(shop.catalog)) == (1, 0, 2)


@pytest.fixture
def years(tmp_path):
    """Two folders with pictures of the same names: red ones and blue ones."""
    for year, color in (("2023", "red"), ("2024", "blue")):
        (tmp_path / year).mkdir()
        for number in range(3):
            draw(tmp_path / year / f"IMG_{number}.png", color, size=16 + number)
    return tmp_path / "2023", tmp_path / "2024"


def counts(report):
    return (report.added, report.changed, report.dropped, report.unchanged, len(report.skipped))


def shown_of(catalog):
    """The file of each item's first picture by id."""
    return {hit.id: Path(hit.image) for hit in catalog.search("x", k=99, target="images")}


def test_equal_file_names_in_two_folders_do_not_overwrite_each_other(shop, years):
    shop.catalog.build(read_pairs(years[0]))
    draw(years[1] / "new.png", "green")
    report = shop.catalog.build(read_pairs(years[1]))
    assert counts(report) == (1, 0, 0, 0, 3)
    assert [one.name for one in report.skipped] == [one.id for one in report.skipped] == [f"IMG_{n}.png" for n in "012"]
    assert f"an item of {years[0]} with another picture" in report.skipped[0].reason
    expected = {f"IMG_{n}.png": years[0] / f"IMG_{n}.png" for n in "012"} | {"new.png": years[1] / "new.png"}
    assert shown_of(shop.catalog) == expected
    assert counts(shop.catalog.build(read_pairs(years[0]))) == (0, 0, 0, 3, 0)
    with pytest.raises(CatalogError, match=r"IMG_0\.png: its id is that of an item of"):
        shop.catalog.build(read_pairs(years[1]), strict=True)


def test_unreadable_image_drops_no_item_of_another_source(shop, years):
    shop.catalog.build(read_pairs(years[0]))
    for number in range(3):
        (years[1] / f"IMG_{number}.png").write_bytes(b"this is no picture")
    report = shop.catalog.build(read_pairs(years[1]))
    assert counts(report) == (0, 0, 0, 0, 3)
    assert "is not an image" in report.skipped[0].reason
    assert shown_of(shop.catalog) == {f"IMG_{n}.png": years[0] / f"IMG_{n}.png" for n in "012"}


def test_items_of_a_moved_or_copied_folder_move_to_the_new_source(shop, years):
    shop.catalog.build(read_pairs(years[0]))
    copy = years[0].parent / "copy"
    shutil.copytree(years[0], copy)
    assert counts(shop.catalog.build(read_pairs(copy))) == (0, 3, 0, 0, 0)
    moved = copy.rename(years[0].parent / "moved")
    draw(moved / "IMG_0.png", "green")
    (moved / "IMG_1.png").unlink()
    assert counts(shop.catalog.build(read_pairs(moved))) == (0, 2, 0, 0, 0)
    draw(moved / "IMG_0.png", "black")
    (moved / "IMG_2.png").unlink()
    assert counts(shop.catalog.build(read_pairs(moved))) == (0, 1, 1, 0, 0), "they are of the new folder by now"


def test_table_takes_over_the_items_of_an_earlier_table_of_the_same_files(shop, tmp_path):
    """As with a daily export, even where the image has changed since."""
    for day, price in (("1", "5"), ("2", "6")):
        with (tmp_path / f"{day}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "image", "price"], ["x", "photos/red.png", price]])
    shop.catalog.build(read_pairs(tmp_path / "1.csv"))
    draw(shop.folder / "red.png", "pink")
    assert counts(shop.catalog.build(read_pairs(tmp_path / "2.csv"))) == (0, 1, 0, 0, 0)
    assert [hit.id for hit in shop.catalog.search("pink", where={"price": 6})] == ["x"]


def test_build_that_refuses_to_drop_still_maintains_the_catalog(shop):
    shop.build()
    for color in COLORS[:2]:
        draw(shop.folder / f"{color}.png", color, size=20)
    for color in COLORS[2:]:
        (shop.folder / f"{color}.png").write_bytes(b"this is no picture any more")
    with pytest.raises(CatalogError, match="would drop 3 of the 5"):
        shop.build()
    assert not (shop.folder.parent / "c" / "images-1.f32").exists()
    assert (shop.folder.parent / "c" / "images-2.f32").stat().st_size == 5 * DIMENSION * 4


def test_unreadable_rows_block_drops_until_fixed_or_pruned(shop, tmp_path):
    def feed(*rows):
        (tmp_path / "feed.csv").write_text("\n".join(["id,image,title", *rows]))
        return read_pairs(tmp_path / "feed.csv")

    rows = [f"{color},photos/{color}.png,{color}" for color in COLORS]
    shop.catalog.build(feed(*rows))
    bad = feed('red,photos/red.png,"stray', 'green,photos/green.png,"Hat, warm"', *rows[2:4])
    report = shop.catalog.build(bad)
    assert (counts(report), report.kept_hidden, len(shop.catalog)) == ((0, 1, 0, 2, 1), 2, 5)
    report = shop.catalog.build(feed(*rows[:4]))
    assert (counts(report), report.kept_hidden) == ((0, 1, 1, 3, 0), 0)
    assert counts(shop.catalog.build(bad, prune=True)) == (0, 1, 1, 2, 1)


def test_unreadable_folder_drops_nothing(shop, monkeypatch):
    (shop.folder / "inner").mkdir()
    draw(shop.folder / "inner" / "pink.png", "pink")
    shop.build()
    scandir = os.scandir

    def failing(path):
        if Path(path).name == "inner":
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr("os.scandir", failing)
    counted, _, report = shop.build()
    assert (counted, report.kept_hidden) == ((0, 0, 0, 5), 1)
    assert [(one.name, one.reason) for one in report.skipped] == [("inner/", "cannot be read (Input/output error)")]


def test_deleted_item_stays_deleted_until_restore(shop):
    shop.build()
    assert shop.catalog.delete(["red.png", "nobody"]) == 1
    counts, _, report = shop.build()
    assert (counts, report.kept_deleted) == ((0, 0, 0, 4), 1)
    assert shop.build(restore=True)[0] == (1, 0, 0, 4)
    assert shop.build()[0] == (0, 0, 0, 5)


def test_rows_of_one_id_are_one_item_with_all_images_and_captions(shop, tmp_path):
    with (tmp_path / "products.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["id", "image", "title", "price"],
                ["007", "photos/red.png", "shoe", "5"],
                ["007", "photos/blue.png", "shoe", "5"],
                ["007", "photos/green.png", "a shoe", "6"],
                ["8", "photos/missing.png", "hat", "6"],
            ]
        )
    report = shop.catalog.build(read_pairs(tmp_path / "products.csv"))
    assert report.added == 1
    assert [one.reason.startswith("there is no such file") for one in report.skipped] == [True]
    assert [hit.id for hit in shop.catalog.search("blue", k=9)] == ["007"]
    hit = shop.catalog.search("blue", where={"price": 5})[0]
    assert Path(hit.image).name == "blue.png"
    assert sorted(one.caption for one in shop.catalog.search("x", target="captions")) == ["a shoe", "shoe"]


def test_attribute_change_embeds_nothing_and_updates_filters(shop, tmp_path):
    def feed(price):
        with (tmp_path / "feed.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "image", "price"], ["x", "photos/red.png", price]])
        return shop.catalog.build(read_pairs(tmp_path / "feed.csv"))

    feed(5)
    assert [hit.id for hit in shop.catalog.search("red", where={"price": 5})] == ["x"]
    images = shop.encoder.images
    assert feed(7).changed == 1
    assert shop.encoder.images == images
    assert shop.catalog.search("red", where={"price": 5}) == []
    assert [hit.id for hit in shop.catalog.search("red", where={"price": 7})] == ["x"]


def test_invalid_unicode_is_skipped_by_build_and_refused_by_upsert(shop):
    pairs = read_pairs(shop.folder)
    red, blue, *others = pairs.pairs
    pairs = replace(pairs, pairs=(replace(red, id="caf\udce9"), replace(blue, captions=("\udce9",)), *others))
    report = shop.catalog.build(pairs)
    assert (report.added, len(report.skipped)) == (3, 2)
    assert report.skipped[0].name == "caf\\udce9"
    assert "not valid Unicode" in report.skipped[0].reason
    with pytest.raises(ItemError, match="not valid Unicode"):
        shop.catalog.upsert([{"id": "x", "images": [shop.folder / "red.png"], "attributes": {"a": "\udce9"}}])


def test_id_with_nul_is_refused_and_matches_nothing(shop):
    """SQLite cuts a text at a NUL, so such an id would match the item of its first part."""
    shop.catalog.upsert([{"id": "a", "images": [shop.folder / "red.png"]}])
    with pytest.raises(ItemError, match=r"Item 'a\\x00b': .* has a NUL"):
        shop.catalog.upsert([{"id": "a\0b", "images": [shop.folder / "red.png"]}])
    assert shop.catalog.get(["a\0b"]) == {}
    assert shop.catalog.delete(["a\0b"]) == 0
    assert list(shop.catalog.get(["a"])) == ["a"]


def test_progress_reaches_the_total_even_without_changes(shop):
    for _ in range(2):
        seen = []
        shop.build(progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1] == (5, 5)
        assert seen == sorted(seen)


def test_unknown_index_kind_is_refused(shop):
    with pytest.raises(CatalogError, match="no index kind 'flat'"):
        shop.build(index="flat")


def test_interrupted_build_resumes_after_its_last_batch(folder, monkeypatch):
    monkeypatch.setattr(sync, "BATCH_ITEMS", 8)
    for number in range(60):
        draw(folder / f"n{number:02d}.png", (number * 4, 0, 255 - number * 4))
    shop = Fixture(folder)
    encode, calls = shop.encoder.encode_prepared, []

    def breaking(prepared):
        calls.append(len(prepared))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return encode(prepared)

    monkeypatch.setattr(shop.encoder, "encode_prepared", breaking)
    with pytest.raises(KeyboardInterrupt):
        shop.build()
    done = len(shop.catalog)
    assert 30 <= done < 65
    monkeypatch.undo()
    counts, (images, _), _ = shop.build()
    assert counts == (65 - done, 0, 0, done)
    assert images == 65 - done
    with Catalog.open(folder.parent / "undisturbed", encoder=FakeEncoder()) as plain:
        plain.build(read_pairs(folder))
        assert contents(shop.catalog) == contents(plain)
    shop.catalog.close()


def test_compaction_removes_dead_vectors_past_a_fifth(shop):
    shop.build()
    shop.catalog.delete(["red.png"])
    assert shop.folder.parent.joinpath("c", "images-1.f32").stat().st_size == 5 * DIMENSION * 4
    shop.catalog.delete(["blue.png"])
    assert shop.folder.parent.joinpath("c", "images-2.f32").stat().st_size == 3 * DIMENSION * 4
    assert not shop.folder.parent.joinpath("c", "images-1.f32").exists()
    assert shop.catalog.search("white", k=9)[0].id == "white.png"
    assert shop.build(restore=True)[:2] == ((2, 0, 0, 3), (2, 4))
    assert shop.catalog.search("blue", k=9)[0].id == "blue.png"


# --- upsert and delete


def test_upsert_adds_updates_and_leaves_unchanged_items(shop):
    item = {"id": "x", "images": [shop.folder / "red.png"], "captions": ["a", "b"], "attributes": {"n": 1}}
    assert shop.catalog.upsert([item]) == SyncReport(added=1)
    assert shop.catalog.upsert([item]) == SyncReport(unchanged=1)
    assert shop.catalog.upsert([item | {"attributes": {"n": 2}}]) == SyncReport(changed=1)
    assert (shop.encoder.images, shop.encoder.texts) == (1, ["a", "b"])
    assert shop.catalog.upsert([item | {"images": [shop.folder / "blue.png", shop.folder / "red.png"]}]).changed == 1
    assert shop.encoder.images == 2
    assert [hit.image for hit in shop.catalog.search("blue")] == [str(shop.folder / "blue.png")]


def test_upsert_of_the_same_vectors_writes_nothing(shop):
    item = {"id": "x", "image_vectors": np.eye(DIMENSION)[:2], "captions": ["a"]}
    shop.catalog.upsert([item])
    size = shop.folder.parent.joinpath("c", "images-1.f32").stat().st_size
    assert shop.catalog.upsert([item]) == SyncReport(unchanged=1)
    assert shop.folder.parent.joinpath("c", "images-1.f32").stat().st_size == size


def test_last_of_two_items_with_one_id_wins(shop):
    report = shop.catalog.upsert(
        {"id": "x", "images": [shop.folder / f"{color}.png"]} for color in ("red", "green", "blue")
    )
    assert report == SyncReport(added=1)
    assert Path(shop.catalog.search("red")[0].image).name == "blue.png"


def test_upsert_refuses_only_the_item_with_an_unreadable_image(shop):
    shop.catalog.upsert([{"id": "x", "images": [shop.folder / "red.png"]}])
    (shop.folder / "bad.png").write_bytes(b"this is no picture")
    report = shop.catalog.upsert(
        [
            {"id": "x", "images": [shop.folder / "blue.png", shop.folder / "bad.png"]},
            {"id": "y", "images": [shop.folder / "green.png"]},
            {"id": "z", "images": [shop.folder / "missing.png"]},
        ]
    )
    assert (report.added, report.changed) == (1, 0)
    assert [Path(one.name).name for one in report.skipped] == ["bad.png", "missing.png"]
    assert sorted(hit.id for hit in shop.catalog.search("red")) == ["x", "y"]
    assert Path(shop.catalog.search("red")[0].image).name == "red.png"


def test_malformed_item_refuses_the_whole_upsert(shop):
    good = {"id": "x", "images": [shop.folder / "red.png"]}
    with pytest.raises(CatalogError, match="unknown fields"):
        shop.catalog.upsert([good, {"id": "y", "picture": "a.png"}])
    assert len(shop.catalog) == 0


def test_upsert_restores_a_deleted_id_for_later_builds(shop):
    shop.build()
    shop.catalog.delete(["red.png"])
    shop.catalog.upsert([{"id": "red.png", "images": [shop.folder / "red.png"]}])
    assert shop.build()[0] == (0, 1, 0, 4)


def test_upserted_item_of_a_source_is_dropped_with_that_source(shop):
    shop.build()
    shop.catalog.upsert([{"id": "red.png", "images": [shop.folder / "red.png"], "attributes": {"stock": 3}}])
    (shop.folder / "red.png").unlink()
    assert shop.build()[0] == (0, 0, 1, 4)


def test_delete_requires_a_list(shop):
    with pytest.raises(CatalogError, match=r"takes a list of ids.*\['red'\]"):
        shop.catalog.delete("red")


def test_catalog_of_imported_vectors_guesses_no_encoder(folder):
    with Catalog.open(folder.parent / "c", create=True) as catalog:
        catalog.upsert([{"id": "v", "image_vectors": [[0.0, 1.0, 0.0]]}])
        with pytest.raises(CatalogError, match="no encoder yet"):
            catalog.build(read_pairs(folder))
        with pytest.raises(CatalogError, match="no encoder yet"):
            catalog.upsert([{"id": "x", "images": [folder / "red.png"]}])
        assert len(catalog) == 1


# --- trouble


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs limits on file sizes")
@pytest.mark.parametrize("limit", [600, 40_000, 150_000])
def test_full_disk_raises_and_keeps_all_committed_items(folder, limit):
    """A limit on the size of files stands for the full disk: at first the vectors, then SQLite, meet it."""
    with Catalog.open(folder.parent / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert([{"id": "first", "images": [folder / "red.png"]}])
    code = """
import resource, sys, numpy as np
from pathlib import Path
from fake_encoder import DIMENSION, FakeEncoder
from retrieval.catalog import Catalog
from retrieval.errors import CatalogError
with Catalog.open(sys.argv[1], encoder=FakeEncoder()) as catalog:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    done = 1
    rows = np.random.default_rng(0).normal(size=(9999, DIMENSION))
    try:
        for number, row in enumerate(rows):
            catalog.upsert([{"id": str(number), "image_vectors": row[None], "attributes": {"text": "x" * 500}}])
            done += 1
    except CatalogError as error:
        print(done, str(error).replace("\\n", " "))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder.parent / "c"), str(limit)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    done, _, message = ran.stdout.partition(" ")
    assert "All committed changes are kept" in message
    with Catalog.open(folder.parent / "c", encoder=FakeEncoder()) as catalog:
        assert len(catalog) == int(done)
        assert catalog.search("red", k=1)[0].id == "first"
        assert catalog.upsert([{"id": "next", "images": [folder / "blue.png"]}]).added == 1


def test_build_beside_another_writer_raises_a_locked_error(shop, monkeypatch):
    monkeypatch.setattr("retrieval.catalog.write.writer.BUILD_PATIENCE", 0.1)
    with (
        Catalog.open(shop.folder.parent / "c") as other,
        other._writer.locked(),
        pytest.raises(CatalogLockedError, match="being written by this process"),
    ):
        shop.build()


def test_build_waits_for_a_small_change_of_another_writer(shop):
    """As beside a service that receives price updates."""
    with Catalog.open(shop.folder.parent / "c") as service, ExitStack() as stack:
        stack.enter_context(service._writer.locked())
        done = threading.Timer(0.3, stack.close)
        done.start()
        assert shop.build()[0] == (5, 0, 0, 0)
        done.join()


# --- a real model


def test_real_model_is_recorded_reloaded_and_checked(folder, tmp_path):
    run = write_tiny_model(tmp_path / "run")
    with Catalog.open(tmp_path / "c", encoder=load_encoder(run, device="cpu"), device="cpu") as catalog:
        assert catalog.build(read_pairs(folder)).added == 5
        expected = catalog.search("a red square", k=5)
        assert len(expected) == 5
    with Catalog.open(tmp_path / "c", device="cpu", read_only=True) as catalog:
        assert catalog.search("a red square", k=5) == expected
        hit = catalog.search(image=folder / "red.png", target="images", k=1)[0]
        assert (hit.id, hit.score) == ("red.png", pytest.approx(1, abs=1e-4))
    other = write_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(CatalogError, match="was built with the encoder"):
        Catalog.open(tmp_path / "c", encoder=load_encoder(other, device="cpu"))
