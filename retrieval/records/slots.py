"""Which slot of a side's vector file belongs to which image or caption, and what each vector was made of."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.records.schema import read_meta, write_meta
from retrieval.records.state import SideState
from retrieval.types import SideName

Column: TypeAlias = NDArray[np.int64]

_ENTRY = np.dtype([("slot", np.int64), ("item", np.int64), ("position", np.int64)])
_ENTRIES: dict[SideName, tuple[str, str]] = {
    "images": (
        "SELECT slot, item, position FROM images",
        "SELECT slot, images.item, position FROM images JOIN attribute_changes USING (item) WHERE revision > ?",
    ),
    "captions": (
        "SELECT slot, item, position FROM captions",
        "SELECT slot, captions.item, position FROM captions JOIN attribute_changes USING (item) WHERE revision > ?",
    ),
}
_LIVE: dict[SideName, str] = {
    "images": "SELECT DISTINCT slot FROM images ORDER BY slot",
    "captions": "SELECT DISTINCT slot FROM captions ORDER BY slot",
}
_IS_LIVE: dict[SideName, str] = {
    "images": "EXISTS (SELECT 1 FROM images WHERE images.slot = vectors.slot)",
    "captions": "EXISTS (SELECT 1 FROM captions WHERE captions.slot = vectors.slot)",
}


class VectorRecord(NamedTuple):
    """The content and the tower that a slot's vector was made of."""

    slot: int
    hash: str
    fingerprint: str


class KnownVector(NamedTuple):
    """A vector that is there already; `live` says whether an image or a caption has it now."""

    slot: int
    live: bool


class Slots:
    """Questions to, and changes of, the bookkeeping of vectors over one SQLite connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def side(self, side: SideName) -> SideState:
        """Return the state of one side's vectors."""
        return SideState(**read_meta(self.connection, side, {}))

    def put_side(self, side: SideName, state: SideState) -> None:
        """Record the state of one side's vectors."""
        write_meta(self.connection, {side: asdict(state)})

    def find_vectors(self, side: SideName, hashes: Iterable[str], *, fingerprint: str) -> dict[str, KnownVector]:
        """Return the vectors that were made of these contents by this tower, by content hash."""
        rows = self.connection.execute(
            f"SELECT hash, slot, {_IS_LIVE[side]} FROM vectors "  # noqa: S608 - made of constants
            "WHERE side = ? AND fingerprint = ? AND hash IN (SELECT value FROM json_each(?))",
            (side, fingerprint, json.dumps(list(hashes))),
        )
        return {name: KnownVector(slot, bool(live)) for name, slot, live in rows}

    def put_vectors(self, side: SideName, vectors: Sequence[VectorRecord]) -> None:
        """Record what new slots were made of; a content that had another slot has the new one from now on."""
        self.connection.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", [(side, *vector) for vector in vectors]
        )

    def entries(self, side: SideName, *, since: int = 0) -> tuple[Column, Column, Column]:
        """Return slots, items and positions, (n,) each, of the images or captions of a side, in no order.

        Only those of the items that changed after revision `since`; zero takes all.
        """
        every, changed = _ENTRIES[side]
        cursor = self.connection.execute(changed, (since,)) if since else self.connection.execute(every)
        rows = np.fromiter(cursor, dtype=_ENTRY)
        return rows["slot"].copy(), rows["item"].copy(), rows["position"].copy()

    def live(self, side: SideName) -> list[int]:
        """Return the slots that an image or a caption has, sorted."""
        return [slot for (slot,) in self.connection.execute(_LIVE[side])]

    def changed_items(self, since: int) -> Column:
        """Return the items that were added, changed or deleted after revision `since`."""
        cursor = self.connection.execute("SELECT item FROM attribute_changes WHERE revision > ?", (since,))
        return np.fromiter((item for (item,) in cursor), dtype=np.int64)

    def image_slots(self, item: int) -> list[int]:
        """Return the slots of an item's images."""
        rows = self.connection.execute("SELECT slot FROM images WHERE item = ? ORDER BY position", (item,))
        return [slot for (slot,) in rows]

    def caption_texts(self) -> list[str]:
        """Return the different captions, sorted."""
        return [text for (text,) in self.connection.execute("SELECT DISTINCT text FROM captions ORDER BY text")]

    def replace_captions(self, texts: Sequence[str], vectors: Sequence[VectorRecord]) -> None:
        """Give every caption the slot of its text's new vector, and forget the vectors that captions had before."""
        run = self.connection.execute
        run("CREATE TEMP TABLE embedded (text TEXT PRIMARY KEY, slot INTEGER NOT NULL) WITHOUT ROWID")
        slots = [(text, vector.slot) for text, vector in zip(texts, vectors, strict=True)]
        self.connection.executemany("INSERT INTO embedded VALUES (?, ?)", slots)
        run("UPDATE captions SET slot = (SELECT slot FROM embedded WHERE embedded.text = captions.text)")
        run("DROP TABLE embedded")
        run("DELETE FROM vectors WHERE side = 'captions'")
        self.put_vectors("captions", vectors)

    def renumber(self, side: SideName, live: Sequence[int]) -> None:
        """Give the live slots, sorted, the numbers 0, 1, 2... and forget the vectors of all others."""
        run = self.connection.execute
        run("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
        self.connection.executemany("INSERT INTO moved VALUES (?2, ?1)", enumerate(live))
        run(
            "CREATE TEMP TABLE kept AS SELECT side, new, hash, fingerprint FROM vectors "
            "JOIN moved ON slot = old WHERE side = ?",
            (side,),
        )
        run("DELETE FROM vectors WHERE side = ?", (side,))
        run("INSERT INTO vectors SELECT * FROM kept")
        if side == "images":
            run("UPDATE images SET slot = (SELECT new FROM moved WHERE old = slot)")
        else:
            run("UPDATE captions SET slot = (SELECT new FROM moved WHERE old = slot)")
        run("DROP TABLE moved")
        run("DROP TABLE kept")
