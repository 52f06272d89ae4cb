"""Which slot of a side's vector file belongs to which image or caption, and which content each vector was made of."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.records.schema import read_meta, write_meta
from retrieval.records.state import SideState
from retrieval.types import SideName

Column: TypeAlias = NDArray[np.int64]

_ENTRY = np.dtype([("slot", np.int64), ("item", np.int64), ("position", np.int64)])


class Slots:
    """The records of vectors, over one SQLite connection. The name of a side is that of its table."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def side(self, side: SideName) -> SideState:
        """Return the state of one side's vectors."""
        return SideState(**read_meta(self.connection, side, {}))

    def put_side(self, side: SideName, state: SideState) -> None:
        """Record the state of one side's vectors."""
        write_meta(self.connection, {side: asdict(state)})

    def find_vectors(
        self, side: SideName, contents: Iterable[str], *, fingerprint: str
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Return the slots, live ones and dead ones, of the vectors that this tower made of these contents."""
        rows = self.connection.execute(
            f"SELECT hash, slot, EXISTS (SELECT 1 FROM {side} WHERE {side}.slot = vectors.slot) FROM vectors "  # noqa: S608
            "WHERE side = ? AND fingerprint = ? AND hash IN (SELECT value FROM json_each(?))",
            (side, fingerprint, json.dumps(list(contents))),
        )
        live: dict[str, int] = {}
        dead: dict[str, int] = {}
        for content, slot, is_live in rows:
            (live if is_live else dead)[content] = slot
        return live, dead

    def add_vectors(self, side: SideName, state: SideState, contents: Sequence[str], *, fingerprint: str) -> None:
        """Record new slots behind those of `state`, one for each content; they replace older slots of it."""
        vectors = [(side, slot, content, fingerprint) for slot, content in enumerate(contents, start=state.rows)]
        self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", vectors)
        self.put_side(side, replace(state, rows=state.rows + len(contents)))

    def entries(self, side: SideName, *, since: int = 0) -> tuple[Column, Column, Column]:
        """Return slots, items and positions, (n,) each, of the images or captions of a side, in no order.

        Only those of the items that changed after revision `since`; zero takes all.
        """
        every = f"SELECT slot, item, position FROM {side}"  # noqa: S608
        changed = f"SELECT slot, item, position FROM {side} JOIN attribute_changes USING (item) WHERE revision > ?"  # noqa: S608
        cursor = self.connection.execute(changed, (since,)) if since else self.connection.execute(every)
        rows = np.fromiter(cursor, dtype=_ENTRY)
        return rows["slot"].copy(), rows["item"].copy(), rows["position"].copy()

    def live(self, side: SideName) -> list[int]:
        """Return the slots that an image or a caption has, sorted."""
        return [slot for (slot,) in self.connection.execute(f"SELECT DISTINCT slot FROM {side} ORDER BY slot")]  # noqa: S608

    def changed_items(self, since: int) -> Column:
        """Return the items that were added, changed or deleted after revision `since`."""
        cursor = self.connection.execute("SELECT item FROM attribute_changes WHERE revision > ?", (since,))
        return np.fromiter((item for (item,) in cursor), dtype=np.int64)

    def caption_texts(self) -> list[str]:
        """Return the distinct captions, sorted."""
        return [text for (text,) in self.connection.execute("SELECT DISTINCT text FROM captions ORDER BY text")]

    def replace_captions(
        self, state: SideState, texts: Sequence[str], contents: Sequence[str], *, fingerprint: str
    ) -> None:
        """Give the captions new slots from 0 on, in the order of the distinct `texts`, and forget their old vectors."""
        run = self.connection.execute
        run("CREATE TEMP TABLE embedded (text TEXT PRIMARY KEY, slot INTEGER NOT NULL) WITHOUT ROWID")
        self.connection.executemany("INSERT INTO embedded VALUES (?2, ?1)", enumerate(texts))
        run("UPDATE captions SET slot = (SELECT slot FROM embedded WHERE embedded.text = captions.text)")
        run("DROP TABLE embedded")
        run("DELETE FROM vectors WHERE side = 'captions'")
        self.add_vectors("captions", state, contents, fingerprint=fingerprint)

    def renumber(self, side: SideName, live: Sequence[int]) -> None:
        """Give the live slots, sorted, the numbers 0, 1, 2... and forget the vectors of all others."""
        run = self.connection.execute
        run("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
        self.connection.executemany("INSERT INTO moved VALUES (?2, ?1)", enumerate(live))
        run(
            "CREATE TEMP TABLE remaining AS SELECT side, new, hash, fingerprint FROM vectors "
            "JOIN moved ON slot = old WHERE side = ?",
            (side,),
        )
        run("DELETE FROM vectors WHERE side = ?", (side,))
        run("INSERT INTO vectors SELECT * FROM remaining")
        run(f"UPDATE {side} SET slot = (SELECT new FROM moved WHERE old = slot)")  # noqa: S608
        run("DROP TABLE moved")
        run("DROP TABLE remaining")
