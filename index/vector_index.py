"""VectorIndex: rows in, Neighbors out, whatever kind of index finds them."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from index.candidates import CandidateIndex
from index.device import Device, DeviceChoice, resolve_device
from index.errors import DeviceError, VectorError
from index.exact import check_k, make_mask
from index.snapshot import Allowed, Snapshot, check_ids
from index.spec import IndexSpec, check_effort, choose_spec_for_machine
from index.stored import StoredIndex, checksum_rows, read_index_file, write_index_file
from index.vectors import Ids, Mask, Neighbors, Rows, check_matrix, check_rows

MAX_UNINDEXED = 4096  # rows that are searched exactly (0.2 ms a query) before the candidate index takes them in
MAX_DEAD_FRACTION = 0.2  # of the candidate index's rows, above which it is built again without them
MAX_GROWTH = 4  # times the rows that trained it, above which lists and codes are trained again


class VectorIndex:
    """Rows under ids, searched by cosine. An id is a slot: the row's number in the matrix, never reused or moved.

    Whatever the kind, scores are exact cosines of the stored rows, equal scores stand in id order, and a search
    returns min(k, live rows) neighbors; what the candidates leave out is found by exact search. Any number of threads
    may search while one adds, removes or saves: a search sees the rows of the moment at which it began.
    """

    def __init__(self, snapshot: Snapshot, spec: IndexSpec, device: Device) -> None:
        """Use `build` or `load`."""
        self._snapshot = snapshot
        self._spec = spec
        self._device = device
        self._snapshot_lock = Lock()  # held for a moment, while the snapshot is replaced
        self._build_lock = Lock()  # held while the candidate index grows, is built or is written
        self._buffer: Rows = np.empty((0, snapshot.rows.shape[1]), np.float32)

    @classmethod
    def build(
        cls, rows: Rows, *, spec: IndexSpec | str = "auto", device: DeviceChoice = "auto", dead: Ids | None = None
    ) -> "VectorIndex":
        """Return an index of unit rows.

        Args:
            rows: matrix or memory map, (n, d); it is kept, not copied.
            spec: kind and sizes, a kind of default sizes, or "auto": chosen by the number of rows and the memory.
            device: "cpu", "cuda", or "auto": the GPU where FAISS can use one that can hold the index.
            dead: ids that no search returns.

        A VectorError if they are not unit rows; a SpecError for an impossible kind or size, or ids in `dead` that are
        no slots; a DeviceError if FAISS is needed and missing, or `cuda` is missing or cannot hold the index.
        """
        rows = check_rows(rows)
        live = np.ones(len(rows), np.bool_)
        if dead is not None:
            live[check_ids(dead, len(rows))] = False
        return _create_on(device, partial(cls._build_on, rows, live, spec=spec))

    @classmethod
    def load(cls, path: Path, rows: Rows, *, device: DeviceChoice = "auto") -> "VectorIndex":
        """Return the index that `save` wrote, of the same rows; rows appended since are searched exactly at first.

        On a CPU the file is memory-mapped: a search reads only the parts of file and rows that it needs.
        A StoredIndexError where the file is missing, damaged, or of other rows; a DeviceError as in `build`.
        """
        rows = check_matrix(rows)
        stored = read_index_file(path, rows)
        index = _create_on(device, partial(cls._load_on, path, rows[: len(stored.live)], stored=stored))
        index.update(rows, dead=index.dead)
        return index

    @property
    def spec(self) -> IndexSpec:
        """The kind and sizes; sizes that were left open are those of the candidate index."""
        candidate_index = self._snapshot.candidate_index
        return self._spec if candidate_index is None else replace(self._spec, **asdict(candidate_index.kind))

    @property
    def effort(self) -> float:
        """How thorough a search is by default, in [0, 1]; it is saved with the index."""
        return self._spec.effort

    @effort.setter
    def effort(self, effort: float) -> None:
        self._spec = replace(self._spec, effort=effort)

    @property
    def device(self) -> Device:
        """Where the candidate index lives."""
        return self._device

    @property
    def dimension(self) -> int:
        """Length of a row."""
        return int(self._snapshot.rows.shape[1])

    @property
    def slots(self) -> int:
        """Number of rows, dead ones included: the next row gets this id."""
        return len(self._snapshot.rows)

    @property
    def dead(self) -> Ids:
        """The ids of the removed rows, ascending."""
        return np.flatnonzero(~self._snapshot.live)

    def __len__(self) -> int:
        return self._snapshot.count

    def search(
        self, queries: Rows, k: int, *, allowed: Allowed | None = None, effort: float | None = None
    ) -> Neighbors:
        """Return the k nearest live rows of each query.

        Args:
            queries: unit rows, (q, d).
            k: number of results; min(k, live and allowed rows) come back.
            allowed: ids, or a mask (slots,), to search: then the search is exact, whatever the kind.
            effort: how thorough, in [0, 1]; the index's own where None.

        A VectorError if the queries are not unit rows of the index's dimension; a SpecError for k below 1, an effort
        outside [0, 1], or ids that are no slots.
        """
        snapshot = self._snapshot
        queries = check_rows(queries, dimension=snapshot.rows.shape[1])
        check_k(k)
        effort = self._spec.effort if effort is None else check_effort(effort)
        if allowed is not None:
            return snapshot.search_allowed(queries, k, allowed)
        return snapshot.search(queries, k, effort)

    def search_exactly(self, queries: Rows, k: int) -> Neighbors:
        """Return the truly nearest live rows, as `exact_search` finds them: what recall is measured against."""
        return self.search(queries, k, allowed=self._snapshot.live)

    def add(self, rows: Rows) -> Ids:
        """Append unit rows, (m, d), and return their ids, (m,). The first call copies the matrix."""
        rows = check_rows(rows, dimension=self.dimension)
        with self._snapshot_lock:
            first = self.slots
            # A buffer with spare room: what a search sees of it never changes.
            known, count = self._snapshot.rows, first + len(rows)
            if known.base is not self._buffer or count > len(self._buffer):
                self._buffer = np.empty((count + count // 2, self.dimension), np.float32)
                self._buffer[:first] = known
            self._buffer[first:count] = rows
            self._publish(self._buffer[:count])
        self.maintain()
        return np.arange(first, first + len(rows))

    def extend(self, rows: Rows) -> None:
        """`update` the matrix, and `maintain`."""
        self.update(rows)
        self.maintain()

    def remove(self, ids: Ids) -> None:
        """Return these ids from no search again, and `maintain`; ids may be removed twice, others are a SpecError."""
        self._mark_dead(ids)
        self.maintain()

    def update(self, rows: Rows, *, dead: Ids | None = None) -> None:
        """Replace the matrix by a longer one, and remove rows; quick, since the index itself is left to `maintain`.

        The matrix or memory map, (n, d), starts with the same rows (otherwise a VectorError) and is not copied.
        """
        rows = check_matrix(rows, dimension=self.dimension)
        with self._snapshot_lock:
            known = self._snapshot.rows
            if len(rows) < len(known) or checksum_rows(rows[: len(known)]) != checksum_rows(known):
                raise VectorError(f"{len(rows):,} rows do not start with the {len(known):,} indexed. Build it again.")
            check_rows(rows[len(known) :])
            self._publish(rows)
        if dead is not None:
            self._mark_dead(dead)

    @property
    def needs_maintenance(self) -> bool:
        """Whether searching the unindexed rows takes longer than searching the candidate index."""
        return self.slots - self._snapshot.covered > MAX_UNINDEXED

    def maintain(self) -> None:
        """Index the new rows, or rebuild the candidate index where it has outgrown its training or a fifth is dead.

        Searches and changes go on meanwhile, and searches return what they would without. Errors as in `build`.
        """
        with self._build_lock:
            snapshot = self._snapshot
            rows, live, candidate_index = snapshot.rows, np.flatnonzero(snapshot.live), snapshot.candidate_index
            is_behind = len(rows) - snapshot.covered > MAX_UNINDEXED
            dead = [0.0] if candidate_index is None else ~snapshot.live[candidate_index.slots]
            if not is_behind and np.mean(dead) <= MAX_DEAD_FRACTION:
                return
            outgrown = candidate_index is None or candidate_index.needs_rebuild(len(live), growth=MAX_GROWTH)
            if candidate_index is None or outgrown or not is_behind:
                candidate_index = _build_candidates(rows, live, spec=self._spec, device=self._device)
            else:
                last = candidate_index.slots[-1] if len(candidate_index.slots) else -1
                candidate_index.add(rows, live[np.searchsorted(live, last, side="right") :])
            with self._snapshot_lock:
                self._snapshot = replace(self._snapshot, candidate_index=candidate_index, covered=len(rows))

    def save(self, path: Path) -> None:
        """Write all but the rows to one file, whole or not at all; a StoredIndexError if there is no room."""
        with self._build_lock:
            snapshot, live = self._snapshot, self._snapshot.live
            stored = StoredIndex(self._spec, live, np.zeros_like(live), None, 0, 0)
            candidates = snapshot.candidate_index if self._spec.kind != "exact" else None
            if candidates is not None:
                indexed = make_mask(candidates.slots, len(live))
                stored = StoredIndex(self._spec, live, indexed, self.spec, candidates.trained, snapshot.covered)
            write_index_file(path, stored, snapshot.rows, save=None if candidates is None else candidates.save)

    @classmethod
    def _build_on(cls, rows: Rows, live: Mask, device: Device, *, spec: IndexSpec | str) -> "VectorIndex":
        slots = np.flatnonzero(live)
        if spec == "auto":
            spec = choose_spec_for_machine(len(slots), rows.shape[1], device=device)
        spec = IndexSpec(spec) if isinstance(spec, str) else spec
        candidate_index = _build_candidates(rows, slots, spec=spec, device=device)
        covered = 0 if candidate_index is None else len(rows)
        return cls(Snapshot(rows, live, len(slots), candidate_index, covered), spec, device)

    @classmethod
    def _load_on(cls, path: Path, rows: Rows, device: Device, *, stored: StoredIndex) -> "VectorIndex":
        if stored.built_spec is None:  # exact, or too few rows for its kind: built from the rows where needed
            return cls._build_on(rows, stored.live, device, spec=stored.spec)
        kind, slots = stored.built_spec.create_kind(), np.flatnonzero(stored.indexed)
        candidate_index = kind.load(path, slots, dimension=rows.shape[1], trained=stored.trained, device=device)
        count = int(np.count_nonzero(stored.live))
        return cls(Snapshot(rows, stored.live, count, candidate_index, stored.covered), stored.spec, device)

    def _publish(self, rows: Rows) -> None:
        """Let searches see the longer matrix; its new rows are searched exactly."""
        live = self._snapshot.live
        live = np.concatenate([live, np.ones(len(rows) - len(live), np.bool_)])
        self._snapshot = replace(self._snapshot, rows=rows, live=live, count=int(np.count_nonzero(live)))

    def _mark_dead(self, ids: Ids) -> None:
        with self._snapshot_lock:
            live = self._snapshot.live.copy()
            live[check_ids(ids, len(live))] = False
            self._snapshot = replace(self._snapshot, live=live, count=int(np.count_nonzero(live)))


def _build_candidates(rows: Rows, slots: Ids, *, spec: IndexSpec, device: Device) -> CandidateIndex | None:
    kind = spec.create_kind().choose_sizes(len(slots), rows.shape[1], device=device)
    return kind.build(rows, slots, device=device)


def _create_on(choice: DeviceChoice, create: Callable[[Device], VectorIndex]) -> VectorIndex:
    """Create an index on the device; `auto` falls back to the CPU where the GPU cannot hold it."""
    device = resolve_device(choice)
    try:
        return create(device)
    except DeviceError:
        if device == "cpu" or choice == "cuda":
            raise
        return create("cpu")
