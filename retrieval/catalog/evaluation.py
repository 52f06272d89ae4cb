"""The sides of a catalog for an evaluation: searched through the index, searched exactly, and looked up by content."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from index.vector_index import VectorIndex
from index.vectors import Ids, Neighbors, Rows
from retrieval.catalog.side import Side, Sides
from retrieval.hashing import content_hash
from retrieval.records.database import Database


@dataclass(frozen=True, slots=True)
class ServedSide:
    """One side as it serves: searches return slots, not grouped by item."""

    side: Side
    database: Database

    @property
    def kind(self) -> str:
        """Kind of the index that serves."""
        with self._reading() as index:
            return str(index.spec.kind)

    def search(self, queries: Rows, k: int) -> Neighbors:
        """Return the k best slots of each query, at the index's usual effort."""
        with self._reading() as index:
            return index.search(queries, k)

    def exact(self, queries: Rows, k: int) -> Neighbors:
        """Return the k truly best live slots of each query."""
        with self._reading() as index:
            return index.search_exactly(queries, k)

    @contextmanager
    def _reading(self) -> Iterator[VectorIndex]:
        with self.side.reading(self.database):
            assert self.side.index is not None  # noqa: S101 - the side has vectors
            yield self.side.index

    def slots_of(self, contents: Sequence[str]) -> Ids:
        """Return the slot of each image by content hash, or of each caption by text; -1 where the catalog has none."""
        target = self.side.target
        keys = [text if target == "images" else content_hash(text.encode()) for text in contents]
        with self.database.reading() as records:
            fingerprint = records.state().space.fingerprint("image" if target == "images" else "text")
            live, _ = records.slots.find_vectors(target, keys, fingerprint=fingerprint)
        return np.array([live.get(key, -1) for key in keys], np.int64)


@dataclass(frozen=True, slots=True)
class ServedCatalog:
    """Both sides; None for one that is empty."""

    images: ServedSide | None
    captions: ServedSide | None


def serve_sides(database: Database, sides: Sides) -> ServedCatalog:
    """Return both sides, once their indexes are up to date."""
    for side in sides.values():
        with side.reading(database):
            pass  # starts to update an index that is behind
        side.updater.wait()
    served = {name: ServedSide(side, database) if len(side) else None for name, side in sides.items()}
    return ServedCatalog(images=served["images"], captions=served["captions"])
