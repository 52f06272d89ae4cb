"""New vectors of one side on their way into the catalog: what is known is found, what is new is appended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from index.vectors import Rows
from retrieval.records import Records
from retrieval.records.slots import VectorRecord
from retrieval.records.state import SideState
from retrieval.records.vector_store import append_rows, map_rows, vector_path
from retrieval.types import SideName


@dataclass(slots=True)
class Shelf:
    """The slots of one commit.

    A vector whose last image or caption is gone keeps its slot in the file but not in anybody's index, so it is copied
    to a new slot when its content comes back: a slot that died never lives again.

    Attributes:
        slots: Slot of each content, by content hash.
        vectors: Contents with new slots.
        rows: Their rows, in slot order.
    """

    folder: Path
    side: SideName
    fingerprint: str
    state: SideState
    slots: dict[str, int] = field(default_factory=dict)
    vectors: list[VectorRecord] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)

    @classmethod
    def open(cls, records: Records, side: SideName, *, fingerprint: str) -> "Shelf":
        """Return an empty shelf behind the side's committed vectors."""
        return cls(records.folder, side, fingerprint, records.slots.side(side))

    def find(self, records: Records, contents: Sequence[str]) -> list[str]:
        """Give slots to the contents that were embedded before, and return the others, each once."""
        known = records.slots.find_vectors(self.side, contents, fingerprint=self.fingerprint)
        live = {content: vector.slot for content, vector in known.items() if vector.live}
        dead = {content: vector.slot for content, vector in known.items() if not vector.live}
        self.slots.update(live)
        if dead:
            path = vector_path(self.folder, self.side, self.state.generation)
            stored = map_rows(path, count=self.state.rows, dimension=records.meta("dimension"))
            self.put({content: np.array(stored[slot]) for content, slot in dead.items()})
        return [content for content in dict.fromkeys(contents) if content not in self.slots]

    def put(self, vectors: Mapping[str, Rows]) -> None:
        """Give new slots to contents with these vectors, `(d,)` each."""
        for content, row in vectors.items():
            slot = self.state.rows + len(self.rows)
            self.slots[content] = slot
            self.vectors.append(VectorRecord(slot, content, self.fingerprint))
            self.rows.append(row)

    def write(self) -> None:
        """Append the rows to the side's file and wait until the disk has them; nothing names them yet."""
        if self.rows:
            path = vector_path(self.folder, self.side, self.state.generation)
            append_rows(path, np.stack(self.rows), at=self.state.rows)

    def record(self, records: Records) -> None:
        """Name the rows in the records, inside the caller's transaction."""
        if self.rows:
            records.slots.put_vectors(self.side, self.vectors)
            records.slots.put_side(self.side, replace(self.state, rows=self.state.rows + len(self.rows)))
