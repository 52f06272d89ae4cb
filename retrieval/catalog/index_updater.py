"""Loads, builds, extends and saves the index of one side, beside the searches."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, cast

from index.errors import DeviceError, IndexingError, StoredIndexError
from index.vector_index import VectorIndex
from index.vectors import Ids, Rows
from retrieval.errors import CatalogError, RetrievalError
from retrieval.records.database import LOCK, Database
from retrieval.records.locks import is_locked
from retrieval.records.state import CatalogState, SideState
from retrieval.records.vector_store import index_path, map_rows, vector_path
from retrieval.types import SideName

logger = logging.getLogger("retrieval.catalog")


@dataclass(frozen=True, slots=True)
class IndexedRows:
    """The vectors of a side, its dead slots and its index (None without vectors), as of one revision."""

    rows: Rows
    dead: Ids
    state: SideState
    revision: int
    index: VectorIndex | None


class IndexedSide(Protocol):
    """A side, as its updater uses it."""

    target: SideName

    def indexed_rows(self, database: Database) -> IndexedRows:
        """Return the rows and the index as of now."""

    def use_index(self, index: VectorIndex, state: SideState) -> None:
        """Search in this index, made as of `state`, from now on."""


class IndexUpdater:
    """Opens, builds and saves the index of one side; at most one thread builds at a time."""

    def __init__(self, side: IndexedSide, folder: Path, *, device: str, may_build: bool) -> None:
        """Begin without an index; where `may_build` is False, a missing one is neither built nor saved."""
        self._side = side
        self._folder = folder
        self._device = cast("Literal['auto', 'cpu', 'cuda']", device)  # the index refuses any other
        self._may_build = may_build
        self._updating = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._index_failed_for: SideState | None = None

    def open(self, rows: Rows, dead: Ids, state: SideState | None) -> VectorIndex:
        """Return the saved index, which may lack the latest rows, or exact search where `state` has none saved."""
        if state is not None and state.kind != "exact":
            try:
                return self._load(rows, state)
            except StoredIndexError:
                pass
            except DeviceError as error:  # FAISS is not installed
                if self._device == "cuda":
                    raise
                self._index_failed_for = state
                _warn_of_missing_engine(self._folder, state.kind, str(error))
        # "auto" stays on the CPU here: looking for a GPU takes longer than the search.
        device = "cpu" if self._device == "auto" else self._device
        return VectorIndex.build(rows, spec="exact", device=device, dead=dead)

    def is_behind(self, index: VectorIndex | None, state: SideState | None) -> bool:
        """Whether the records want another kind of index, or it has too many rows beside its structure."""
        if index is None or state is None or state.kind == "exact" or state.same_slots(self._index_failed_for):
            return False
        if index.spec.kind == state.kind:
            return index.needs_maintenance
        return self._may_build or self._path(state).exists()

    def update_in_background(self, database: Database) -> None:
        """Update the index in another thread, unless one does so already."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._update_and_save, args=(database,), name=f"index of the {self._side.target}"
                )
                self._thread.start()

    def wait(self) -> None:
        """Wait for an index that is being built."""
        if self._thread is not None:
            self._thread.join()

    def is_saved(self, side: SideState, state: CatalogState) -> bool:
        """Whether the saved index is as of this state, and undamaged."""
        if side.saved != state.revision:
            return False
        path = vector_path(self._folder, self._side.target, side.generation)
        with suppress(StoredIndexError, DeviceError):
            self._load(map_rows(path, count=side.rows, dimension=state.space.dimension or 1), side)
            return True
        return False

    def save(self, database: Database) -> None:
        """Update and save the index and record its revision; for the one writer. A full disk is a CatalogError."""
        with self._updating:
            now, is_new = self._update(database, may_build=True)
            if now.index is None or (now.state.saved == now.revision and not is_new):
                return
            try:
                now.index.save(self._path(now.state))
            except StoredIndexError as error:
                raise CatalogError(
                    f"{self._folder} is complete, but for its index: {error}. Until then search is exact."
                ) from error
        with database.writing() as records:
            records.slots.put_side(self._side.target, replace(now.state, saved=now.revision))

    def _update_and_save(self, database: Database) -> None:
        """Update the index beside the searches; a process that is writing builds a missing one itself."""
        may_build = self._may_build and not is_locked(self._folder / LOCK)
        try:
            with self._updating:
                now, is_new = self._update(database, may_build=may_build)
                if is_new and now.index is not None:
                    path = self._path(now.state)
                    now.index.save(path)
                    if not self._side.indexed_rows(database).state.same_slots(now.state):
                        path.unlink(missing_ok=True)  # a compaction has removed its vectors
        except StoredIndexError:
            return  # the disk is full: the next process builds it again
        except (IndexingError, RetrievalError, MemoryError) as error:
            logger.warning("%s: cannot build the index of the %s: %s", self._folder, self._side.target, error)

    def _update(self, database: Database, *, may_build: bool) -> tuple[IndexedRows, bool]:
        """Load, build or extend the index, with `_updating` held; return it, and whether it was built."""
        before = self._side.indexed_rows(database)
        index, state = before.index, before.state
        if index is None or state.kind == "exact":
            return before, False
        if index.spec.kind == state.kind:
            index.maintain()
            return before, False
        is_new = False
        self._index_failed_for = state  # unless it is replaced
        try:
            index = self._load(before.rows, state)
        except StoredIndexError:
            if not may_build:
                if self._may_build:  # another process builds it
                    self._index_failed_for = None
                return before, False
            logger.info("%s: building the index of the %s; `close` waits for it", self._folder, self._side.target)
            index = VectorIndex.build(before.rows, spec=state.kind, device=self._device, dead=before.dead)
            is_new = True
        self._side.use_index(index, state)
        self._index_failed_for = None
        return self._side.indexed_rows(database), is_new

    def _load(self, rows: Rows, state: SideState) -> VectorIndex:
        path = self._path(state)
        index = VectorIndex.load(path, rows, device=self._device)
        if index.spec.kind != state.kind:  # the process was killed between choosing another kind and saving its index
            raise StoredIndexError(f"{path} is of kind {index.spec.kind}, not {state.kind}")
        return index

    def _path(self, state: SideState) -> Path:
        return index_path(self._folder, self._side.target, state.generation)


@lru_cache(maxsize=64)
def _warn_of_missing_engine(folder: Path, kind: str, problem: str) -> None:
    """Log once what both sides of a catalog lack."""
    logger.warning("%s: a search reads every vector, without the %s index: %s", folder, kind, problem)
