"""The records of a catalog, over one SQLite connection.

Reading methods may be called in a read transaction, writing ones only in a write transaction; `database` opens both.
Lists are passed as JSON arrays to `json_each`, so no statement is composed from data.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from retrieval.filters.attributes import delete_attributes, store_attributes
from retrieval.records.schema import read_meta, write_meta
from retrieval.records.slots import Slots
from retrieval.records.state import CatalogState, read_state
from retrieval.words.store import Document, index_documents, remove_documents


class StoredImage(NamedTuple):
    """One picture of an item; `path` is relative to the place `folder`, or absolute where that is None."""

    folder: int | None
    path: str | None
    member: str | None
    name: str | None
    hash: str
    size: int | None
    modified: int | None
    slot: int


class StoredCaption(NamedTuple):
    """One caption of an item."""

    text: str
    slot: int


@dataclass(slots=True)
class StoredItem:
    """One item as recorded; `number` is None for a new one."""

    id: str
    number: int | None
    attributes: str
    source: int | None
    images: list[StoredImage]
    captions: list[StoredCaption]


class Records:
    """Queries and changes of one catalog's tables."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self.connection = connection
        self.folder = folder
        self.slots = Slots(connection)

    def meta(self, key: str, default: Any = None) -> Any:
        """Return the value that is recorded under a key."""
        return read_meta(self.connection, key, default)

    def put_meta(self, **values: Any) -> None:
        """Record values under their names."""
        write_meta(self.connection, values)

    def state(self) -> CatalogState:
        """Return what the records say of the whole catalog: encoder, dimension, sides and settings."""
        return read_state(self.connection)

    def counts(self) -> dict[str, int]:
        """Return the numbers of items, images, captions and deleted ids."""
        row = self.connection.execute(
            "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM images), "
            "(SELECT count(*) FROM captions), (SELECT count(*) FROM deleted)"
        ).fetchone()
        return dict(zip(("items", "images", "captions", "deleted"), row, strict=True))

    def has_captions(self) -> bool:
        """Whether any item has a caption."""
        return self.connection.execute("SELECT 1 FROM captions LIMIT 1").fetchone() is not None

    def has_attributes(self) -> bool:
        """Whether any item has an attribute."""
        return self.connection.execute("SELECT 1 FROM attributes LIMIT 1").fetchone() is not None

    # --- places: folders and PAIRS sources, which stay valid when the catalog moves together with them

    def place(self, number: int) -> Path:
        """Return the path of a place: beside the catalog as when it was recorded, else where it was then."""
        absolute, relative = self.connection.execute(
            "SELECT absolute, relative FROM places WHERE number = ?", (number,)
        ).fetchone()
        beside = Path(os.path.normpath(self.folder / relative))
        return beside if beside.exists() else Path(absolute)

    def places(self) -> dict[int, Path]:
        """Return every place by number."""
        numbers = self.connection.execute("SELECT number FROM places ORDER BY number").fetchall()
        return {number: self.place(number) for (number,) in numbers}

    def find_place(self, path: Path) -> int | None:
        """Return the number of a recorded place, or None."""
        return next((number for number, place in self.places().items() if place == path), None)

    def put_place(self, path: Path) -> int:
        """Return the number of a place; record a new one."""
        number = self.find_place(path)
        if number is not None:
            return number
        relative = os.path.relpath(path, self.folder)
        row = self.connection.execute(
            "INSERT INTO places (absolute, relative) VALUES (?, ?) RETURNING number", (str(path), relative)
        ).fetchone()
        return int(row[0])

    def image_paths(self, place: int) -> list[str]:
        """Return the paths of the pictures under a place, relative to it."""
        rows = self.connection.execute("SELECT DISTINCT path FROM images WHERE folder = ?", (place,))
        return [path for (path,) in rows]

    def sources(self) -> list[Path]:
        """Return the PAIRS sources that items came from."""
        numbers = self.connection.execute("SELECT DISTINCT source FROM items WHERE source IS NOT NULL ORDER BY source")
        return [self.place(number) for (number,) in numbers.fetchall()]

    # --- items

    def items(self, ids: Sequence[str]) -> dict[str, StoredItem]:
        """Return the items that have these ids, by id."""
        return {item.id: item for item in self._read_items("id", _names(ids)).values()}

    def items_by_number(self, numbers: Iterable[int]) -> dict[int, StoredItem]:
        """Return the items that have these numbers, by number."""
        return self._read_items("number", json.dumps(list(numbers)))

    def _read_items(self, key: str, values: str) -> dict[int, StoredItem]:
        """Return the items by number whose column `key` has one of the values, a JSON array."""
        read = self.connection.execute
        items = {
            number: StoredItem(name, number, attributes, source, [], [])
            for number, name, attributes, source in read(
                f"SELECT number, id, attributes, source FROM items WHERE {key} IN (SELECT value FROM json_each(?))",  # noqa: S608
                (values,),
            )
        }
        numbers = (json.dumps(list(items)),)
        of_items = "WHERE item IN (SELECT value FROM json_each(?)) ORDER BY item, position"
        image_columns = "folder, path, member, name, hash, size, modified, slot"
        for item, *image in read(f"SELECT item, {image_columns} FROM images {of_items}", numbers):  # noqa: S608
            items[item].images.append(StoredImage(*image))
        for item, *caption in read(f"SELECT item, text, slot FROM captions {of_items}", numbers):  # noqa: S608
            items[item].captions.append(StoredCaption(*caption))
        return items

    def ids_after(self, name: str, *, limit: int) -> list[str]:
        """Return the first `limit` ids after a name, in the order of their characters; "" precedes all."""
        rows = self.connection.execute("SELECT id FROM items WHERE id > ? ORDER BY id LIMIT ?", (name, limit))
        return [found for (found,) in rows]

    def ids_of_source(self, source: int) -> dict[str, int]:
        """Return the numbers of a source's items by id."""
        return dict(self.connection.execute("SELECT id, number FROM items WHERE source = ?", (source,)))

    def numbers_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the numbers of the existing ones of these items, by id."""
        return dict(
            self.connection.execute(
                "SELECT id, number FROM items WHERE id IN (SELECT value FROM json_each(?))", (_names(ids),)
            )
        )

    def attributes_of(self, item: int) -> dict[str, Any]:
        """Return the attributes of one item that exists."""
        row = self.connection.execute("SELECT attributes FROM items WHERE number = ?", (item,)).fetchone()
        attributes: dict[str, Any] = json.loads(row[0])
        return attributes

    def deleted_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that were deleted and not restored."""
        rows = self.connection.execute(
            "SELECT id FROM deleted WHERE id IN (SELECT value FROM json_each(?))", (_names(ids),)
        )
        return {name for (name,) in rows}

    def put_items(self, items: Sequence[StoredItem], attributes: Sequence[Mapping[str, Any]]) -> None:
        """Add the items without a number, replace the others; `attributes` belong to them one to one."""
        (number,) = self.connection.execute("SELECT coalesce(max(item), 0) FROM attribute_changes").fetchone()
        for item in items:
            if item.number is None:
                item.number = number = number + 1  # never used before
        old = [(item.number,) for item in items]
        self.connection.executemany("DELETE FROM images WHERE item = ?", old)
        self.connection.executemany("DELETE FROM captions WHERE item = ?", old)
        self.connection.executemany(
            "INSERT INTO items VALUES (?1, ?2, ?3, ?4) ON CONFLICT (number) DO UPDATE SET attributes = ?3, source = ?4",
            [(item.number, item.id, item.attributes, item.source) for item in items],
        )
        self.connection.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(item.number, position, *image) for item in items for position, image in enumerate(item.images)],
        )
        self.connection.executemany(
            "INSERT INTO captions VALUES (?, ?, ?, ?)",
            [(item.number, position, *caption) for item in items for position, caption in enumerate(item.captions)],
        )
        self.connection.executemany("DELETE FROM deleted WHERE id = ?", [(item.id,) for item in items])
        numbers = [item.number for item in items if item.number is not None]
        store_attributes(self.connection, zip(numbers, attributes, strict=True))
        texts = [[caption.text for caption in item.captions] for item in items]
        ids = [item.id for item in items]
        index_documents(self.connection, [Document(*one) for one in zip(numbers, ids, texts, attributes, strict=True)])

    def drop_items(self, numbers: Iterable[int]) -> None:
        """Remove items with their images and captions; their vectors stay until the next compaction."""
        gone = list(numbers)
        remove_documents(self.connection, gone)
        self.connection.executemany("DELETE FROM items WHERE number = ?", [(number,) for number in gone])
        delete_attributes(self.connection, gone)

    def mark_deleted(self, ids: Iterable[str]) -> None:
        """Keep these ids out of later builds."""
        self.connection.executemany("INSERT OR IGNORE INTO deleted VALUES (?)", [(name,) for name in ids])

    def set_source(self, numbers: Iterable[int], source: int) -> None:
        """Assign these items to another source."""
        self.connection.executemany("UPDATE items SET source = ? WHERE number = ?", [(source, one) for one in numbers])

    def update_file_stamps(self, item: int, images: Sequence[StoredImage]) -> None:
        """Record the size and time of an item's files, which were rewritten with the same content."""
        self.connection.executemany(
            "UPDATE images SET size = ?, modified = ? WHERE item = ? AND position = ?",
            [(image.size, image.modified, item, position) for position, image in enumerate(images)],
        )


def _names(ids: Sequence[str]) -> str:
    """Return ids for `json_each`, without those with a NUL: it cuts them short there, and no item has one."""
    return json.dumps([name for name in ids if "\0" not in name])
