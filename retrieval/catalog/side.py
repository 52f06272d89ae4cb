"""One side of a catalog in memory: its vectors mapped, their index, and which item each of them belongs to."""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from index.errors import DeviceError, IndexingError, StoredIndexError, VectorError
from index.rwlock import ReadWriteLock
from index.vector_index import VectorIndex
from index.vectors import Ids, Mask, Neighbors, Rows
from retrieval.catalog.entries import Entries
from retrieval.catalog.ranking import Ranking, SearchScope
from retrieval.errors import CatalogError, RetrievalError
from retrieval.records import Records
from retrieval.records.database import LOCK, Database
from retrieval.records.locks import is_locked
from retrieval.records.state import SIDES, CatalogState, SideState
from retrieval.records.vector_store import index_path, map_rows, vector_path
from retrieval.types import SideName

if TYPE_CHECKING:
    from index.spec import Kind

_TRIES = 3

logger = logging.getLogger("retrieval.catalog")


class Side:
    """What one process knows of a side, as of one revision of the records."""

    def __init__(self, folder: Path, side: SideName, *, device: str, may_build: bool) -> None:
        """Begin with nothing; `refresh` reads.

        Args:
            folder: The catalog's.
            side: "images" or "captions".
            device: Where the index lives.
            may_build: Whether a missing index is built and saved; the search is exact until it is there.
        """
        self.lock = ReadWriteLock()
        self._folder = folder
        self.target: SideName = side
        self._device = cast("Literal['auto', 'cpu', 'cuda']", device)  # the index refuses any other
        self._may_build = may_build
        self._revision = -1
        self._state: SideState | None = None
        self._entries = Entries.empty()
        self._tending = threading.Lock()
        self._starting = threading.Lock()
        self._tender: threading.Thread | None = None
        self._hopeless: SideState | None = None  # which no index could be built for
        self.index: VectorIndex | None = None
        self.rows: Rows = np.empty((0, 0), np.float32)

    @contextmanager
    def reading(self, database: Database) -> Iterator[Records]:
        """Give records of one moment, this side being as of the same moment while the block runs.

        Raises:
            CatalogError: the file of vectors is missing.
        """
        with read_sides(database, [self]) as records:
            self.tend_aside(database)
            yield records

    @contextmanager
    def holding(self, records: Records, state: CatalogState) -> Iterator[bool]:
        """Keep this side as of the records while the block runs; give False where newer records have to be read."""
        with self.lock.read():
            if self.fits(state):
                yield True
                return
        with self.lock.write():
            is_refreshed = self.fits(state) or (not self._is_newer_than(state) and self._try_refresh(records))
        with self.lock.read():
            yield is_refreshed and self.fits(state)

    def fits(self, state: CatalogState) -> bool:
        """Whether nothing has changed since the last refresh."""
        if self._state is None or state.revision != self._revision:
            return False
        return _is_of(self._state, state.sides[self.target])

    def _is_newer_than(self, state: CatalogState) -> bool:
        generation = 0 if self._state is None else self._state.generation
        return self._revision > state.revision or generation > state.sides[self.target].generation

    def _try_refresh(self, records: Records) -> bool:
        try:
            self.refresh(records)
        except FileNotFoundError:
            return False
        return True

    def refresh(self, records: Records) -> None:
        """Take over what has changed, or read everything the first time and after a compaction.

        Raises:
            FileNotFoundError: the vectors were compacted away after `records` began to read; read again.
        """
        state = records.slots.side(self.target)
        revision = records.revision()
        path = vector_path(self._folder, self.target, state.generation)
        rows = map_rows(path, count=state.rows, dimension=records.meta("dimension") or 1)
        before, self._revision = self._revision, -1  # an error on the way leaves a side that reads everything again
        with _damage_reported(path):
            if before >= 0 and self._state is not None and _is_of(self._state, state):
                self._update(records, rows, since=before)
            else:
                self._load(records, rows, state)
        self._state, self._revision = state, revision

    def __len__(self) -> int:
        return len(self._entries)

    def count(self, mask: Mask | None) -> int:
        """Return how many of these items (by item number; None is all) have images, or how many texts they have."""
        if self.target == "captions":
            return self._entries.slot_count if mask is None else len(self.all_captions(mask))
        return self._entries.item_count if mask is None else int(np.count_nonzero(mask[self._entries.distinct_items()]))

    def all_captions(self, mask: Mask) -> Ranking:
        """Return the texts of the mask's items, each once and of the first of these, in slot order."""
        places = self._entries.first_of_slots(mask)
        return Ranking(self._entries.item[places], self._entries.position[places], np.ones(len(places)))

    def items_with_entries(self, mask: Mask) -> Mask:
        """Return the items of the mask that have an image, or a caption."""
        there = np.zeros_like(mask)
        there[self._entries.distinct_items()] = True
        return mask & there

    def search(self, query: Rows, k: int, scope: SearchScope) -> Ranking:
        """Return the k best entries for one unit row, (1, d), best first; equal scores in slot order, then item order.

        Of an item's images only its best one is returned, and of a text that several items share the one of the first
        item. The index is asked for more until k are found or there are no more, so this costs no result.
        """
        if not len(self._entries) or self.index is None:
            return Ranking.empty()
        allowed = None if scope.allowed is None else self._entries.slot_mask(scope.allowed, len(self.rows))
        wanted = self._first_count(k) + (0 if scope.exclude is None else 1)
        while True:
            neighbors = self.index.search(query, wanted, allowed=allowed, effort=scope.effort)
            found = self._entries_of(neighbors, 0, scope)
            if len(found) >= k or neighbors.ids.shape[1] < wanted:
                return found.take(slice(k))
            wanted *= 4

    def search_many(self, queries: Rows, k: int, *, effort: float | None = None) -> list[Ranking]:
        """Return what `search` returns for each of these queries, (q, d), among all; the index is read once."""
        if not len(self._entries) or self.index is None:
            return [Ranking.empty() for _ in queries]
        wanted, scope = self._first_count(k), SearchScope(effort=effort)
        neighbors = self.index.search(queries, wanted, effort=effort)
        answers = [self._entries_of(neighbors, row, scope).take(slice(k)) for row in range(len(queries))]
        for row, found in enumerate(answers):
            if len(found) < k and neighbors.ids.shape[1] == wanted:
                answers[row] = self.search(queries[row : row + 1], k, scope)
        return answers

    def vectors_of_items(self, items: Ids) -> tuple[Ids, Ids, Rows]:
        """Return the images, or captions, of these items: item numbers and positions, (n,), and their rows, (n, d)."""
        slots, owners, positions = self._entries.of_items(items)
        return owners, positions, self.rows[slots]

    def _first_count(self, k: int) -> int:
        """How many slots are likely to give k hits."""
        return k if self.target == "captions" else math.ceil(k * self._entries.per_item())

    def _entries_of(self, neighbors: Neighbors, row: int, scope: SearchScope) -> Ranking:
        """The entries that the slots of one query stand for: one for each item's images, or one for each text."""
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

    # --- reading

    def _load(self, records: Records, rows: Rows, state: SideState) -> None:
        self.rows = rows
        self._entries = Entries.from_unsorted(*records.slots.entries(self.target))
        self.index = self._open_index(state) if len(rows) else None

    def _update(self, records: Records, rows: Rows, *, since: int) -> None:
        changed = Entries.from_unsorted(*records.slots.entries(self.target, since=since))
        self._entries = self._entries.replace_items(records.slots.changed_items(since), changed)
        self.rows = rows
        if self.index is None:
            self.index = self._exact() if len(rows) else None
        else:
            self._catch_up(self.index)

    def _catch_up(self, index: VectorIndex) -> None:
        """Tell an index of the slots that came or died since it last heard; none of these will live again."""
        gone = np.setdiff1d(self._entries.dead_slots(len(self.rows)), index.dead, assume_unique=True)
        index.follow(self.rows, dead=gone)

    def live(self) -> Ids:
        """Return the slots that an image or a caption has, sorted."""
        return self._entries.live_slots()

    # --- the index

    def _open_index(self, state: SideState) -> VectorIndex:
        """The saved index with what came since; where there is none, exact search for the time being."""
        if state.kind == "exact":
            return self._exact()
        try:
            index = self._saved(state, self.rows)
        except StoredIndexError:
            return self._exact()
        except DeviceError:  # FAISS is not installed
            if self._device == "cuda":
                raise
            return self._exact()
        self._catch_up(index)
        return index

    def _saved(self, state: SideState, rows: Rows) -> VectorIndex:
        index = VectorIndex.load(self._index_path(state), rows, device=self._device)
        if index.spec.kind != state.kind:  # a kill came between the choice of another kind and its index
            raise StoredIndexError(f"{self._index_path(state)} is of kind {index.spec.kind}, not {state.kind}")
        return index

    def _exact(self) -> VectorIndex:
        # "auto" stays on the CPU here: looking for a GPU takes longer than the search.
        device = "cpu" if self._device == "auto" else self._device
        return VectorIndex.build(self.rows, spec="exact", device=device, dead=self._entries.dead_slots(len(self.rows)))

    def save(self, database: Database) -> None:
        """Save the index as it is to be now, unless that is what is saved: the next process has nothing to add.

        For the writer alone, who records which revision was saved.

        Raises:
            CatalogError: the disk is full; everything but the index is there.
        """
        with self._tending:
            is_new = self._tend(database, may_build=True) is not None
            with read_sides(database, [self]) as records:
                index, state, revision = self.index, records.slots.side(self.target), records.revision()
            if index is None or (state.saved == revision and not is_new):
                return
            with _full_disk_reported(self._folder):
                index.save(self._index_path(state))
        with database.writing() as records:
            records.slots.put_side(self.target, replace(state, saved=revision))

    # --- tending it, beside the searches

    def wait(self) -> None:
        """Wait for an index that is being made."""
        if self._tender is not None:
            self._tender.join()

    def _lags(self) -> bool:
        """Whether the index is to be of another kind, or has too much to read beside its structure."""
        index, state = self.index, self._state
        if index is None or state is None or state.kind == "exact" or _is_of(state, self._hopeless):
            return False
        if index.spec.kind == state.kind:
            return index.is_behind
        return self._may_build or self._index_path(state).exists()

    def tend_aside(self, database: Database) -> None:
        """Where the index lags behind, which leaves the search exact, tend it in another thread."""
        if not self._lags():
            return
        with self._starting:
            if self._tender is None or not self._tender.is_alive():
                self._tender = threading.Thread(
                    target=self._tend_and_save, args=(database,), name=f"tend {self.target}"
                )
                self._tender.start()

    def _tend_and_save(self, database: Database) -> None:
        """Tend the index; who is writing now builds a missing one: two processes need not."""
        may_build = self._may_build and not is_locked(self._folder / LOCK)
        try:
            with self._tending:
                built = self._tend(database, may_build=may_build)
                if built is not None:
                    index, path = built
                    index.save(path)
        except StoredIndexError:
            return  # the disk is full: the next process builds it again
        except (IndexingError, RetrievalError, MemoryError) as error:
            self._hopeless = self._state
            logger.warning("%s: the index of the %s could not be made: %s", self._folder, self.target, error)

    def _tend(self, database: Database, *, may_build: bool) -> tuple[VectorIndex, Path] | None:
        """Load or build the index, or take in what came, for who holds `_tending`; return what was built, and its path.

        Only the first and the last moment keep searches waiting.
        """
        with read_sides(database, [self]):
            index, state, rows, dead = self.index, self._state, self.rows, self._entries.dead_slots(len(self.rows))
        if index is None or state is None or state.kind == "exact":
            return None
        if index.spec.kind == state.kind:
            index.tidy()
            return None
        try:
            self._swap(self._saved(state, rows), state)
        except StoredIndexError:
            if may_build:
                logger.info("%s: building the index of the %s, which `close` waits for", self._folder, self.target)
                made = VectorIndex.build(rows, spec=cast("Kind", state.kind), device=self._device, dead=dead)
                self._swap(made, state)
                return made, self._index_path(state)
            if not self._may_build:  # what is saved is damaged, and will not be read at each search
                self._hopeless = state
        return None

    def _swap(self, index: VectorIndex, state: SideState) -> None:
        """Search in this index, made as of `state`, from now on; unless a compaction gave its slots other numbers."""
        with self.lock.write():
            if _is_of(state, self._state):
                self._catch_up(index)
                self.index = index

    def _index_path(self, state: SideState) -> Path:
        return index_path(self._folder, self.target, state.generation)


@contextmanager
def read_sides(
    database: Database, sides: Sequence[Side], needed: Callable[[Records], Collection[SideName]] | None = None
) -> Iterator[Records]:
    """Give records of one moment, with the sides as of that moment while the block runs.

    Args:
        database: The catalog's.
        sides: In an order that all callers keep, since each of them is locked.
        needed: Returns which sides have to be as of the records; all where None.

    Raises:
        CatalogError: a file of vectors is missing.
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
                        raise _missing(database.folder, error) from error
                    missing = error.filename
                else:
                    yield records
                    return


def _is_of(before: SideState, now: SideState | None) -> bool:
    """Whether what is known of the one holds for the other, but for vectors that came since."""
    return now is not None and (before.generation, before.kind) == (now.generation, now.kind)


@contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except StoredIndexError as error:
        raise CatalogError(f"{folder} is complete, but for its index: {error}. Until then search is exact.") from error


def _missing(folder: Path, error: FileNotFoundError) -> CatalogError:
    return CatalogError(
        f"{folder}: the vectors {error.filename} are missing. Put the file back from a copy, "
        f"or delete the catalog and build it again."
    )


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except VectorError as error:
        raise CatalogError(
            f"{path} is damaged ({error}). Put the file back from a copy, or delete the catalog and build it again."
        ) from error
