"""One side of a catalog, its images or its captions, in memory: mapped vectors, their index, and their items."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from index.errors import VectorError
from index.rwlock import ReadWriteLock
from index.vector_index import VectorIndex
from index.vectors import Ids, Mask, Neighbors, Rows
from retrieval.catalog.entries import Entries
from retrieval.catalog.index_updater import IndexedRows, IndexUpdater
from retrieval.catalog.ranking import Ranking, SearchScope
from retrieval.errors import CatalogError
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.state import SIDES, CatalogState, SideState
from retrieval.records.vector_store import map_rows, vector_path
from retrieval.types import SideName

_TRIES = 3


class Side:
    """A side as of one revision of the records."""

    def __init__(self, folder: Path, side: SideName, *, device: str, may_build: bool) -> None:
        """Begin empty; where `may_build` is False, a missing index is neither built nor saved."""
        self.lock = ReadWriteLock()
        self.target: SideName = side
        self.updater = IndexUpdater(self, folder, device=device, may_build=may_build)
        self.index: VectorIndex | None = None
        self.rows: Rows = np.empty((0, 0), np.float32)
        self._folder = folder
        self._revision = -1
        self._state: SideState | None = None
        self._entries = Entries.empty()

    # --- as of the records

    @contextmanager
    def reading(self, database: Database) -> Iterator[Records]:
        """Read records as `read_sides` does, with this side as of the same moment while the block runs."""
        with read_sides(database, [self]) as records:
            self.update_index(database)
            yield records

    def update_index(self, database: Database) -> None:
        """Start to update the index in another thread where it is behind."""
        if self.updater.is_behind(self.index, self._state):
            self.updater.update_in_background(database)

    @contextmanager
    def holding(self, records: Records, state: CatalogState) -> Iterator[bool]:
        """Keep this side as of the records while the block runs; yield False where newer records have to be read."""
        with self.lock.read():
            if self.fits(state):
                yield True
                return
        with self.lock.write(), suppress(FileNotFoundError):  # compacted away: newer records name another file
            generation = 0 if self._state is None else self._state.generation
            is_newer = self._revision > state.revision or generation > state.sides[self.target].generation
            if not is_newer and not self.fits(state):
                self.refresh(records)
        with self.lock.read():
            yield self.fits(state)

    def fits(self, state: CatalogState) -> bool:
        """Whether this side is as of the state."""
        return state.revision == self._revision and state.sides[self.target].same_slots(self._state)

    def refresh(self, records: Records) -> None:
        """Read what has changed, or everything the first time and after a compaction.

        Raises:
            FileNotFoundError: the vectors were compacted away after `records` began to read; read again.
        """
        catalog = records.state()
        state, revision = catalog.sides[self.target], catalog.revision
        path = vector_path(self._folder, self.target, state.generation)
        rows = map_rows(path, count=state.rows, dimension=catalog.space.dimension or 1)
        is_known = self._revision >= 0 and state.same_slots(self._state)
        before, self._revision = self._revision, -1  # after an error, everything is read again
        if is_known:
            changed = Entries.from_unsorted(*records.slots.entries(self.target, since=before))
            self._entries = self._entries.replace_items(records.slots.changed_items(before), changed)
        else:
            self.index = None
            self._entries = Entries.from_unsorted(*records.slots.entries(self.target))
        self.rows = rows
        try:
            if self.index is None and len(rows):
                dead = self._entries.dead_slots(len(rows))
                self.index = self.updater.open(rows, dead, None if is_known else state)
            if self.index is not None:
                self._catch_up(self.index)
        except VectorError as error:
            raise CatalogError(
                f"{path} is damaged ({error}). Restore the file from a copy, or delete the catalog and build it again."
            ) from error
        self._state, self._revision = state, revision

    # --- search

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, mask: Mask | None) -> int:
        """Return how many items of the mask (None is all) have images, or how many distinct texts they have."""
        if self.target == "captions":
            return self._entries.slot_count if mask is None else len(self.all_captions(mask))
        return self._entries.item_count if mask is None else int(np.count_nonzero(mask[self._entries.distinct_items()]))

    def all_captions(self, mask: Mask) -> Ranking:
        """Return the distinct texts of the mask's items, each of the first item that has it, in slot order."""
        places = np.flatnonzero(mask[self._entries.item])
        places = places[np.flatnonzero(np.diff(self._entries.slot[places], prepend=-1))]
        return Ranking(self._entries.item[places], self._entries.position[places], np.ones(len(places)))

    def items_with_entries(self, mask: Mask) -> Mask:
        """Return the items of the mask that have an image, or a caption."""
        there = np.zeros_like(mask)
        there[self._entries.distinct_items()] = True
        return mask & there

    def search(self, query: Rows, k: int, scope: SearchScope) -> Ranking:
        """Return the k best entries for one unit row, (1, d), best first; equal scores in slot order, then item order.

        An item appears once, with its best image; a text that items share once, with the first of them. The index is
        asked for more slots until k entries are found.
        """
        if not len(self._entries) or self.index is None:
            return Ranking.empty()
        allowed = None
        if scope.allowed is not None:
            allowed = np.zeros(len(self.rows), np.bool_)
            allowed[self._entries.slot[scope.allowed[self._entries.item]]] = True
        wanted = self._slots_for(k) + (0 if scope.exclude is None else 1)
        while True:
            neighbors = self.index.search(query, wanted, allowed=allowed, effort=scope.effort)
            found = self._rank_slots(neighbors, 0, scope)
            if len(found) >= k or neighbors.ids.shape[1] < wanted:
                return found.take(slice(k))
            wanted *= 4

    def search_many(self, queries: Rows, k: int, *, effort: float | None = None) -> list[Ranking]:
        """Return what `search` without a scope returns for each of the queries, (q, d); one search of the index."""
        if not len(self._entries) or self.index is None:
            return [Ranking.empty() for _ in queries]
        wanted, scope = self._slots_for(k), SearchScope(effort=effort)
        neighbors = self.index.search(queries, wanted, effort=effort)
        answers = [self._rank_slots(neighbors, row, scope).take(slice(k)) for row in range(len(queries))]
        for row, found in enumerate(answers):
            if len(found) < k and neighbors.ids.shape[1] == wanted:
                answers[row] = self.search(queries[row : row + 1], k, scope)
        return answers

    def vectors_of_items(self, items: Ids) -> tuple[Ids, Ids, Rows]:
        """Return the images, or captions, of these items: item numbers and positions, (n,), and their rows, (n, d)."""
        places = np.flatnonzero(np.isin(self._entries.item, items))
        return self._entries.item[places], self._entries.position[places], self.rows[self._entries.slot[places]]

    def _slots_for(self, k: int) -> int:
        """Return how many slots are likely to give k hits."""
        return k if self.target == "captions" else math.ceil(k * len(self) / self._entries.item_count)

    def _rank_slots(self, neighbors: Neighbors, row: int, scope: SearchScope) -> Ranking:
        """Return the entries of one query's slots, best first: one for each item's images, or one for each text."""
        places, owners = self._entries.at_slots(neighbors.ids[row])
        item = self._entries.item[places]
        kept = np.ones(len(item), np.bool_) if scope.allowed is None else scope.allowed[item]
        if scope.exclude is not None:
            kept &= item != scope.exclude
        places, owners, item = places[kept], owners[kept], item[kept]
        _, first = np.unique(item if self.target == "images" else owners, return_index=True)
        first.sort()
        scores = neighbors.scores[row][owners[first]].astype(np.float64)
        return Ranking(item[first], self._entries.position[places[first]], scores)

    def _catch_up(self, index: VectorIndex) -> None:
        """Update an index by the slots that were added or died since."""
        gone = np.setdiff1d(self._entries.dead_slots(len(self.rows)), index.dead, assume_unique=True)
        index.update(self.rows, dead=gone)

    # --- the index

    def indexed_rows(self, database: Database) -> IndexedRows:
        """Return the rows and the index as of now, for the updater."""
        with read_sides(database, [self]):
            assert self._state is not None  # noqa: S101 - the side is refreshed
            dead = self._entries.dead_slots(len(self.rows))
            return IndexedRows(self.rows, dead, self._state, self._revision, self.index)

    def use_index(self, index: VectorIndex, state: SideState) -> None:
        """Search in this index, made as of `state`, from now on; unless a compaction has renumbered the slots."""
        with self.lock.write():
            if state.same_slots(self._state):
                self._catch_up(index)
                self.index = index


Sides: TypeAlias = Mapping[SideName, Side]


@contextmanager
def read_sides(
    database: Database, sides: Collection[Side], needed: Callable[[Records], Collection[SideName]] | None = None
) -> Iterator[Records]:
    """Read records of one moment, with the sides that are `needed` (or all) as of that moment while the block runs.

    Each side is locked, so all callers pass them in the same order. A missing file of vectors is a CatalogError.
    """
    database.check_process()  # before any lock

    def choose(records: Records) -> list[Side]:
        names = SIDES if needed is None else needed(records)
        return [side for side in sides if side.target in names]

    for _ in range(_TRIES):
        with database.reading() as records, ExitStack() as stack:
            state = records.state()
            if all(stack.enter_context(side.holding(records, state)) for side in choose(records)):
                yield records
                return
    # Another process writes faster than this one reads: keep the other threads from refreshing the sides meanwhile.
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side.lock.write())
        missing = None
        while True:
            with database.reading() as records:
                try:
                    for side in choose(records):
                        side.refresh(records)
                except FileNotFoundError as error:  # compacted away, unless the next records name it too
                    if error.filename == missing:
                        raise CatalogError(
                            f"The vectors {missing} are missing. Restore the file from a copy, or delete the catalog "
                            f"and build it again."
                        ) from error
                    missing = error.filename
                else:
                    yield records
                    return
