"""The catalog's records, its vector files, its locks and its format."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sql_filters import filter_sql

from retrieval.catalog.entries import Entries
from retrieval.catalog.items import encode_attributes, parse_item
from retrieval.errors import CatalogError, CatalogFormatError, CatalogLockedError
from retrieval.filters import parse_filter
from retrieval.filters.column_store import ColumnStore
from retrieval.records import StoredCaption, StoredImage, StoredItem, schema
from retrieval.records.database import FILE, Database, create_database, is_blank, is_catalog
from retrieval.records.locks import writer_lock
from retrieval.records.state import SideState
from retrieval.records.vector_store import append_rows, copy_rows, map_rows, remove_other_generations
from retrieval.words.search import WordSearch


@pytest.fixture
def database(tmp_path):
    create_database(tmp_path / "c")
    opened = Database(tmp_path / "c", read_only=False)
    yield opened
    opened.close()


def stored(name, *, slots=(0,), captions=(), number=None, attributes=None):
    images = [StoredImage(None, f"/{name}/{slot}.png", None, None, f"hash{slot}", 1, 2, slot) for slot in slots]
    texts = [StoredCaption(text, slot) for slot, text in enumerate(captions)]
    return StoredItem(name, number, encode_attributes(attributes or {}), None, images, texts)


def put(database, *items, attributes=None):
    with database.writing() as records:
        records.put_items(list(items), [attributes or {} for _ in items])


# --- vector files


def rows_of(*values):
    return np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)


def test_vectors_round_trip_bit_for_bit_without_an_uncommitted_tail(tmp_path):
    path = tmp_path / "images-1.f32"
    append_rows(path, rows_of(1, 2), at=0)
    append_rows(path, rows_of(3), at=2)
    np.testing.assert_array_equal(map_rows(path, count=2, dimension=3), rows_of(1, 2))
    np.testing.assert_array_equal(map_rows(path, count=3, dimension=3), rows_of(1, 2, 3))


def test_append_overwrites_an_uncommitted_tail(tmp_path):
    path = tmp_path / "images-1.f32"
    append_rows(path, rows_of(1, 2, 3, 4), at=0)
    append_rows(path, rows_of(9), at=1)
    assert path.stat().st_size == 2 * 3 * 4
    np.testing.assert_array_equal(map_rows(path, count=2, dimension=3), rows_of(1, 9))


def test_memory_map_survives_appends_and_deletion_of_the_file(tmp_path):
    path = tmp_path / "images-1.f32"
    append_rows(path, rows_of(1, 2), at=0)
    mapped = map_rows(path, count=2, dimension=3)
    append_rows(path, rows_of(3), at=2)
    remove_other_generations(tmp_path, "images", generation=2)
    assert not path.exists()
    np.testing.assert_array_equal(mapped, rows_of(1, 2))


def test_truncated_vector_file_raises_an_error_with_both_counts(tmp_path):
    path = tmp_path / "images-1.f32"
    append_rows(path, rows_of(1, 2), at=0)
    with pytest.raises(CatalogError, match="holds 2 vectors where the records name 5"):
        map_rows(path, count=5, dimension=3)
    with pytest.raises(CatalogError, match="holds 2 vectors where the records name 5"):
        append_rows(path, rows_of(1), at=5)
    assert path.stat().st_size == 2 * 3 * 4, "a refused append changes nothing"


def test_mapping_zero_rows_needs_no_file(tmp_path):
    assert map_rows(tmp_path / "none", count=0, dimension=7).shape == (0, 7)


def test_copy_rows_writes_the_chosen_rows_in_order(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    chosen = np.flatnonzero(np.arange(20_000) % 3)
    copy_rows(rows, chosen, tmp_path / "images-2.f32")
    np.testing.assert_array_equal(map_rows(tmp_path / "images-2.f32", count=len(chosen), dimension=4), rows[chosen])


# --- items


def test_item_round_trips_and_a_replacement_keeps_its_number(database):
    put(database, stored("ä b", slots=(4, 2), captions=("x", "y"), attributes={"n": 1}), stored("c"))
    with database.reading() as records:
        first = records.items(["ä b", "nobody"])["ä b"]
        assert [image.slot for image in first.images] == [4, 2]
        assert [caption.text for caption in first.captions] == ["x", "y"]
        assert first.attributes == '{"n":1}'
    put(database, stored("ä b", slots=(7,), number=first.number))
    with database.reading() as records:
        again = records.items(["ä b"])["ä b"]
        assert (again.number, [image.slot for image in again.images], again.captions) == (first.number, [7], [])
        assert records.counts() == {"items": 2, "images": 2, "captions": 0, "deleted": 0}


def test_number_of_a_dropped_item_is_never_reused(database):
    put(database, stored("a"), stored("b"))
    with database.writing() as records:
        gone = records.numbers_of(["b"])["b"]
        records.drop_items([gone])
    put(database, stored("c"))
    with database.reading() as records:
        assert records.numbers_of(["a", "b", "c"]) == {"a": 1, "c": gone + 1}
        assert records.counts()["images"] == 2


def rows_of_entries(entries):
    return list(zip(*(column.tolist() for column in (entries.slot, entries.item, entries.position)), strict=True))


@pytest.mark.parametrize("seed", range(30))
def test_replaced_entries_equal_sorting_all_and_are_counted(seed):
    """Items share slots, have several, and one of them twice; they are added, changed and dropped."""
    generator = np.random.default_rng(seed)

    def entries_of(items):
        return [(int(generator.integers(12)), item, place) for item in items for place in range(generator.integers(4))]

    def made(rows):
        return Entries.from_unsorted(*np.array(rows, np.int64).reshape(-1, 3).T)

    before = entries_of(range(15))
    changed = generator.choice(20, generator.integers(8), replace=False)
    now = entries_of(changed.tolist())
    expected = sorted([row for row in before if row[1] not in changed] + now)
    found = made(before).replace_items(changed, made(now))
    assert rows_of_entries(found) == expected
    assert (found.item_count, found.slot_count) == (
        len({row[1] for row in expected}),
        len({row[0] for row in expected}),
    )
    assert found.dead_slots(12).tolist() == sorted(set(range(12)) - {row[0] for row in expected})


def test_changed_items_are_those_written_since_a_revision(database):
    put(database, stored("a", slots=(0,)), stored("b", slots=(1,)), stored("c", slots=(2,)))
    with database.reading() as records:
        before = records.state().revision
    put(database, stored("b", slots=(3, 4), number=2))
    with database.writing() as records:
        records.drop_items([3])
    with database.reading() as records:
        assert sorted(records.slots.changed_items(before).tolist()) == [2, 3]
        changed = Entries.from_unsorted(*records.slots.entries("images", since=before))
        assert rows_of_entries(changed) == [(3, 2, 0), (4, 2, 1)]
        every = Entries.from_unsorted(*records.slots.entries("images"))
        assert rows_of_entries(every) == [(0, 1, 0), (3, 2, 0), (4, 2, 1)]


def test_filters_by_sql_and_by_columns_equal_the_records(database):
    put(database, stored("a"), attributes={"price": 5})
    put(database, stored("b"), attributes={"price": 50})
    with database.writing() as records:
        records.drop_items(records.numbers_of(["a"]).values())
    put(database, stored("c"), attributes={"price": 7})
    condition, column_store = parse_filter({"price": {"$lt": 60}}), ColumnStore()
    with database.reading() as records:
        by_sql = {item for (item,) in records.connection.execute(*filter_sql(condition))}
        assert by_sql == set(np.flatnonzero(column_store.mask(condition, records.connection)).tolist()) == {2, 3}


def test_vector_is_found_by_content_and_tower_and_live_while_used(database):
    put(database, stored("a", slots=(0,)))
    with database.writing() as records:
        records.slots.add_vectors("images", SideState(), ["x", "y"], fingerprint="tower")
        assert records.slots.find_vectors("images", ["x", "y", "z"], fingerprint="tower") == ({"x": 0}, {"y": 1})
        assert records.slots.side("images").rows == 2
        assert records.slots.find_vectors("images", ["x"], fingerprint="another") == ({}, {})
        assert records.slots.find_vectors("captions", ["x"], fingerprint="tower") == ({}, {})


def test_renumbering_keeps_each_image_with_its_content(database):
    put(database, stored("a", slots=(5, 2)), stored("b", slots=(9, 2)))
    with database.writing() as records:
        contents = [f"hash{slot}" for slot in range(10)]
        records.slots.add_vectors("images", SideState(), contents, fingerprint="tower")
        records.slots.renumber("images", [2, 5, 9])
    with database.reading() as records:
        items = records.items(["a", "b"])
        assert [image.slot for image in items["a"].images + items["b"].images] == [1, 0, 2, 0]
        live, dead = records.slots.find_vectors("images", contents, fingerprint="tower")
        assert (live, dead) == ({"hash2": 0, "hash5": 1, "hash9": 2}, {})


# --- places


def test_place_moves_with_the_catalog_and_stays_when_only_the_catalog_moves(tmp_path):
    (tmp_path / "one" / "photos").mkdir(parents=True)
    create_database(tmp_path / "one" / "c")
    first = Database(tmp_path / "one" / "c", read_only=False)
    with first.writing() as records:
        number = records.put_place(tmp_path / "one" / "photos")
        assert records.put_place(tmp_path / "one" / "photos") == number
    first.close()
    (tmp_path / "one" / "c").rename(tmp_path / "c")
    alone = Database(tmp_path / "c", read_only=True)
    with alone.reading() as records:
        assert records.place(number) == tmp_path / "one" / "photos"
    alone.close()
    (tmp_path / "c").rename(tmp_path / "one" / "c")
    (tmp_path / "one").rename(tmp_path / "two")
    together = Database(tmp_path / "two" / "c", read_only=True)
    with together.reading() as records:
        assert records.place(number) == tmp_path / "two" / "photos"
        assert records.find_place(tmp_path / "two" / "photos") == number
    together.close()


# --- transactions


def test_error_in_a_transaction_rolls_it_back(database):
    put(database, stored("a"))

    def drop_and_fail():
        with database.writing() as records:
            records.drop_items([1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        drop_and_fail()
    with database.reading() as records:
        assert records.counts()["items"] == 1


def test_read_transaction_keeps_its_snapshot_while_another_commits(database):
    put(database, stored("a"))
    with database.reading() as before:
        assert before.counts()["items"] == 1
        put(database, stored("b"))
        assert before.counts()["items"] == 1
        with database.reading() as after:
            assert after.counts()["items"] == 2


def test_closed_database_raises(database):
    database.close()
    with pytest.raises(CatalogError, match="was closed"), database.reading():
        pass


# --- format


def test_create_keeps_an_existing_catalog_and_refuses_other_folders(database, tmp_path):
    put(database, stored("a"))
    create_database(database.folder)
    with database.reading() as records:
        assert records.counts()["items"] == 1
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(CatalogFormatError, match="not a catalog and not empty"):
        create_database(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["me.jpg"]
    with pytest.raises(CatalogFormatError, match="is a file"):
        create_database(tmp_path / "photos" / "me.jpg")


def test_interrupted_creation_is_completed(tmp_path):
    (tmp_path / "c").mkdir()
    sqlite3.connect(tmp_path / "c" / FILE).close()
    assert is_catalog(tmp_path / "c")
    assert is_blank(tmp_path / "c")
    with pytest.raises(CatalogFormatError, match="creation was interrupted"):
        Database(tmp_path / "c", read_only=True)
    create_database(tmp_path / "c")
    Database(tmp_path / "c", read_only=True).close()


def test_newer_format_raises_an_error_that_names_the_release(database):
    with database.writing() as records:
        records.connection.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
        records.put_meta(needs="7.5.0")
    with pytest.raises(
        CatalogFormatError, match=rf"format {schema.FORMAT + 1}; .* Install crossmodal-retrieval 7\.5\.0 or later"
    ):
        Database(database.folder, read_only=False)


def test_foreign_database_and_garbage_are_refused_unchanged(tmp_path):
    (tmp_path / "other").mkdir()
    connection = sqlite3.connect(tmp_path / "other" / FILE)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    content = (tmp_path / "other" / FILE).read_bytes()
    create_database(tmp_path / "other")
    with pytest.raises(CatalogFormatError, match="another program's database"):
        Database(tmp_path / "other", read_only=False)
    assert (tmp_path / "other" / FILE).read_bytes() == content
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(CatalogFormatError, match="damaged or no catalog"):
        Database(tmp_path / "garbage", read_only=True)


# Format 0 as it was: attributes as JSON alone, no log of changes, no view of live items.
FORMAT_0 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE places (number INTEGER PRIMARY KEY, absolute TEXT NOT NULL, relative TEXT NOT NULL);
CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    attributes TEXT NOT NULL,
    source INTEGER REFERENCES places (number)
);
CREATE INDEX items_by_source ON items (source);
CREATE TABLE images (
    item INTEGER NOT NULL REFERENCES items (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    folder INTEGER REFERENCES places (number),
    path TEXT,
    member TEXT,
    name TEXT,
    hash TEXT NOT NULL,
    size INTEGER,
    modified INTEGER,
    slot INTEGER NOT NULL,
    PRIMARY KEY (item, position)
) WITHOUT ROWID;
CREATE INDEX images_by_slot ON images (slot);
CREATE TABLE captions (
    item INTEGER NOT NULL REFERENCES items (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    slot INTEGER NOT NULL,
    PRIMARY KEY (item, position)
) WITHOUT ROWID;
CREATE INDEX captions_by_slot ON captions (slot);
CREATE TABLE vectors (
    side TEXT NOT NULL,
    slot INTEGER NOT NULL,
    hash TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (side, slot)
) WITHOUT ROWID;
CREATE UNIQUE INDEX vectors_by_content ON vectors (side, hash, fingerprint);
CREATE TABLE deleted (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


def write_format_0(folder: Path) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / FILE)
    schema.run(connection, FORMAT_0)
    connection.execute(
        "INSERT INTO meta VALUES ('dimension', '3'), ('images', ?)",
        ('{"generation": 1, "rows": 2, "kind": "exact"}',),
    )
    connection.execute("INSERT INTO items VALUES (1, 'a', '{\"price\": 5}', NULL), (2, 'b', '{\"price\": 50}', NULL)")
    connection.execute(
        "INSERT INTO images VALUES (1, 0, NULL, '/a.png', NULL, 'a', 'h1', 1, 1, 0), "
        "(2, 0, NULL, '/b.png', NULL, 'b', 'h2', 1, 1, 1)"
    )
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    connection.execute("PRAGMA user_version = 0")
    connection.commit()
    connection.close()
    append_rows(folder / "images-1.f32", rows_of(1, 2), at=0)


def test_older_format_is_migrated_with_all_its_records(tmp_path):
    write_format_0(tmp_path / "c")
    with pytest.raises(CatalogFormatError, match="older format 0"):
        Database(tmp_path / "c", read_only=True)
    migrated = Database(tmp_path / "c", read_only=False)
    with migrated.reading() as records:
        assert schema.check_format(records.connection, tmp_path) == schema.FORMAT
        assert records.meta("needs") == schema.FIRST_READERS[schema.FORMAT]
        assert records.counts()["items"] == 2
        mask = ColumnStore().mask(parse_filter({"price": {"$lt": 10}}), records.connection)
        assert np.flatnonzero(mask).tolist() == [1]
        assert records.slots.changed_items(0).tolist() == [1, 2]
        assert WordSearch().find_identified(records.connection, "B") == [2]
    migrated.close()
    Database(tmp_path / "c", read_only=True).close()


def words_of(records):
    sql = "SELECT rowid, names, title, text, facts FROM words UNION ALL SELECT items, word, '', '', '' FROM vocabulary"
    return sorted(records.connection.execute(sql).fetchall())


def test_migration_to_format_2_indexes_the_words_of_all_items(database):
    facts = {"sku": "A-1", "b": {"y": "wool", "x": ["felt"]}}
    texts = [(f"red bag {number}", "more") for number in range(1500)]
    items = [stored(f"item {place}", captions=captions, attributes=facts) for place, captions in enumerate(texts)]
    put(database, *items, attributes=facts)
    with database.writing() as records:
        before = words_of(records)
        for table in ("words", "vocabulary", "identifiers"):  # format 1 had all but these
            records.connection.execute(f"DROP TABLE {table}")
        records.connection.execute("PRAGMA user_version = 1")
    with pytest.raises(CatalogFormatError, match="older format 1"):
        Database(database.folder, read_only=True)
    migrated = Database(database.folder, read_only=False)
    with migrated.reading() as records:
        assert words_of(records) == before
        assert WordSearch().find_identified(records.connection, "item 1499") == [1500]
    migrated.close()


def test_every_older_format_has_a_migration():
    assert len(schema.MIGRATIONS) == schema.FORMAT
    assert set(schema.FIRST_READERS) == set(range(schema.FORMAT + 1))


# --- locks


def test_writer_lock_names_the_process_that_holds_it(tmp_path):
    code = (
        "import sys, pathlib; from retrieval.records.locks import writer_lock\n"
        "with writer_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "catalog.lock"
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CatalogLockedError, match=f"being written by process {holder.pid}"), writer_lock(lock):
            pass
        holder.kill()
        holder.wait()
        with writer_lock(lock):
            assert lock.read_text() == f"{os.getpid()}\n"


def test_writer_lock_excludes_another_catalog_object_of_the_process(tmp_path):
    with (
        writer_lock(tmp_path / "lock"),
        pytest.raises(CatalogLockedError, match="another Catalog object"),
        writer_lock(tmp_path / "lock"),
    ):
        pass


def test_read_only_database_has_no_writer(tmp_path):
    create_database(tmp_path / "c")
    opened = Database(tmp_path / "c", read_only=True)
    with pytest.raises(CatalogError, match="opened for reading only"), opened.writer():
        pass
    opened.close()


# --- items at the door


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": ["a.png"]}, "needs an id"),
        ({"id": " ", "images": ["a.png"]}, "needs an id"),
        ({"id": "a"}, "has no image"),
        ({"id": "a", "image": "a.png"}, "unknown fields"),
        ({"id": "a", "images": "a.png"}, "images must be a list"),
        ({"id": "a", "images": [3]}, "an image must be a path"),
        ({"id": "a", "images": ["a.png"], "captions": [3]}, "captions must be texts"),
        ({"id": "a", "images": ["a.png"], "attributes": {"x": object()}}, "attribute 'x'"),
        ({"id": "a", "images": ["a.png"], "attributes": {"x": {1, "b"}}}, "attribute 'x': .* has no order"),
        ({"id": "a", "images": ["a.png"], "attributes": {"x": np.datetime64("2026-01-31", "ns")}}, "a date is text"),
        ({"id": "a", "images": ["a.png"], "attributes": {"x": np.timedelta64(5, "ns")}}, "timedelta64"),
        ({"id": "a", "images": ["a.png"], "attributes": [1]}, "attributes must be a mapping"),
        ({"id": "a", "images": ["a.png", "b.png"], "image_vectors": [[1, 0]]}, "2 images and 1 image_vectors"),
        ({"id": "a", "image_vectors": [[1, 0]], "captions": ["x"], "caption_vectors": []}, "caption_vectors"),
        ({"id": "a", "image_vectors": [[0, 0]]}, "all zeros"),
        ({"id": "a", "image_vectors": [[1, 0, 0]]}, "dimension 3, and 2"),
        ("a", "An item must be a mapping"),
    ],
)
def test_malformed_item_raises_an_error_with_the_reason(given, message, tmp_path):
    with pytest.raises(CatalogError, match=message):
        parse_item(given, root=tmp_path, dimension=2)


def test_image_and_caption_vectors_of_an_item_share_one_dimension(tmp_path):
    given = {"id": "a", "image_vectors": [[1, 0]], "captions": ["x"], "caption_vectors": [[1, 0, 0]]}
    with pytest.raises(CatalogError, match="caption_vectors: The vectors have dimension 3, and 2"):
        parse_item(given, root=tmp_path, dimension=None)


def test_attributes_become_json_and_caption_vectors_follow_their_captions(tmp_path):
    item = parse_item(
        {
            "id": 7,
            "image_vectors": [[3, 4]],
            "captions": [" b ", "", "a", "b"],
            "caption_vectors": [[1, 0], [0, 1], [0, 2], [5, 0]],
            "attributes": {"n": np.int64(3), "x": float("nan"), "list": (np.float32(0.5), True)},
        },
        root=tmp_path,
        dimension=None,
    )
    assert (item.id, item.captions) == ("7", ("b", "a"))
    np.testing.assert_allclose(item.image_vectors, [[0.6, 0.8]], atol=1e-7)
    np.testing.assert_array_equal(item.caption_vectors, [[1, 0], [0, 1]])
    assert encode_attributes(item.attributes) == '{"list":[0.5,true],"n":3,"x":null}'


def test_relative_image_path_is_resolved_under_the_root_then_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "root" / "a.png").touch()
    (tmp_path / "here" / "a.png").touch()
    (tmp_path / "here" / "b.png").touch()
    item = parse_item({"id": "x", "images": ["a.png", "b.png"]}, root=tmp_path / "root", dimension=None)
    assert [image.path for image in item.images] == [tmp_path / "root" / "a.png", tmp_path / "here" / "b.png"]
