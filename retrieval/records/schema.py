"""The tables of a catalog, their format version, and how an older version becomes this one."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import CatalogFormatError
from retrieval.filters.attributes import SCHEMA as ATTRIBUTES
from retrieval.filters.attributes import store_attributes
from retrieval.words.store import SCHEMA as WORDS
from retrieval.words.store import index_all_items

APPLICATION = 0x636D7263  # "cmrc", in the database's application_id: this file is ours
FORMAT = 2
FIRST_READERS = {0: "0.0.1", 1: "0.1.0", 2: "0.1.0"}  # the first release that reads each format

TABLES = """
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

# Readers follow `attribute_changes`, which names every item that was added, changed or deleted. The numbers of deleted
# items stay in it and are never used again.
FILTERS = "CREATE VIEW live_items AS SELECT number AS item FROM items;" + ATTRIBUTES  # noqa: S608 - constants


def create(connection: sqlite3.Connection) -> None:
    """Create the tables of this format, inside the caller's transaction."""
    run(connection, TABLES)
    run(connection, FILTERS)
    run(connection, WORDS)
    _stamp(connection)


def check_format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format version of a catalog's database; the caller migrates an older one.

    Raises:
        CatalogFormatError: another program's database, or a newer format than this release reads.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        raise CatalogFormatError(f"{path} is not a catalog but another program's database; name another folder.")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > FORMAT:
        needs = read_meta(connection, "needs", "a newer version")  # `meta` is the one table that no format changes
        raise CatalogFormatError(
            f"{path} has format {version}; this release of crossmodal-retrieval reads formats up to {FORMAT}. "
            f"Install crossmodal-retrieval {needs} or later to read it."
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Migrate the tables from `version` to this format, step by step, inside the caller's transaction."""
    for step in MIGRATIONS[version:]:
        step(connection)
    _stamp(connection)


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever committed, since the creation was interrupted."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def run(connection: sqlite3.Connection, script: str) -> None:
    """Execute the statements one by one: sqlite3's own executescript would commit the caller's transaction."""
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def read_meta(connection: sqlite3.Connection, key: str, default: Any = None) -> Any:
    """Return the value that is recorded under a key."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row[0])


def write_meta(connection: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    """Record values under their keys."""
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _stamp(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION:d}")
    connection.execute(f"PRAGMA user_version = {FORMAT:d}")
    write_meta(connection, {"needs": FIRST_READERS[FORMAT]})


def _from_0(connection: sqlite3.Connection) -> None:
    """Format 0 kept attributes as JSON alone, and no record of changes."""
    run(connection, FILTERS)
    items = connection.execute("SELECT number, attributes FROM items").fetchall()
    store_attributes(connection, ((number, json.loads(text)) for number, text in items))


def _from_1(connection: sqlite3.Connection) -> None:
    """Format 1 had no words."""
    run(connection, WORDS)
    index_all_items(connection)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _from_0,
    _from_1,
)  # at position i: from format i to i + 1
