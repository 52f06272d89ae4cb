"""VectorIndex: rows in, Neighbors out, whatever kind of structure finds them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal, TypeAlias

import numpy as np

from index.device import Device, Wish, chosen_device
from index.errors import DeviceError, VectorError
from index.exact import checked_count, mask_of
from index.snapshot import Allowed, Snapshot, checked_ids
from index.spec import IndexSpec, Kind, checked_effort, spec_for_here
from index.stored import Stored, read_stored, rows_checksum, write_stored
from index.structure import build_structure, read_structure
from index.vectors import Ids, Mask, Neighbors, Rows, checked_matrix, checked_rows

Wanted: TypeAlias = IndexSpec | Kind | Literal["auto"]

TAIL = 4096  # rows beside the structure that are searched exactly (0.2 ms a query) before it takes them in
DEAD_SHARE = 0.2  # of the structure's rows, past which it is built again without them
GROWTH = 4  # times the rows that trained it, past which lists and codes are trained again


class VectorIndex:
    """Rows under ids, searched by cosine. An id is a slot: the row's number in the matrix, never reused or moved.

    Whatever the kind, scores are exact cosines of the stored rows, equal scores stand in id order, and a search
    returns min(k, live rows) neighbors; what a structure leaves out is found by exact search. Any number of threads
    may search while one adds, removes or saves: a search sees the rows of the moment at which it began.
    """

    def __init__(self, snapshot: Snapshot, spec: IndexSpec, device: Device) -> None:
        """Use `build` or `load`."""
        self._snapshot = snapshot
        self._spec = spec
        self._device = device
        self._changing = Lock()  # for a moment, to show searches something else
        self._tidying = Lock()  # while the structure grows, is built or is written
        self._buffer: Rows = np.empty((0, snapshot.rows.shape[1]), np.float32)

    @classmethod
    def build(
        cls,
        rows: Rows,
        *,
        spec: Wanted = "auto",
        device: Wish = "auto",
        dead: Ids | None = None,
    ) -> "VectorIndex":
        """Return an index of unit rows, (n, d), without those in `dead`; the matrix or memory map is kept, not copied.

        Raises:
            VectorError: rows that are not unit rows.
            SpecError: an impossible kind or size, or ids in `dead` that are no slots.
            DeviceError: FAISS is needed and not there; or `cuda` was asked for and is not there or cannot hold it.
        """
        rows = checked_rows(rows)
        live = np.ones(len(rows), np.bool_)
        if dead is not None:
            live[checked_ids(dead, len(rows))] = False
        return _at_home(device, partial(cls._built, rows, live, wish=spec))

    @classmethod
    def load(cls, path: Path, rows: Rows, *, device: Wish = "auto") -> "VectorIndex":
        """Return the index that `save` wrote, of the same rows; rows that were appended since are searched too.

        Those are read whole until the next change, or `tidy`, takes them into the structure.

        The structure is memory-mapped on a CPU; of it and of the rows only what the searches need is read.

        Raises:
            StoredIndexError: the file is missing, damaged, or was made of other rows.
            DeviceError: as in `build`.
        """
        rows = checked_matrix(rows)
        stored = read_stored(path, rows)
        index = _at_home(device, partial(cls._loaded, path, rows[: len(stored.live)], stored=stored))
        index.follow(rows, dead=index.dead)
        return index

    @property
    def spec(self) -> IndexSpec:
        """The kind, with the sizes that its structure has now."""
        structure = self._snapshot.structure
        return self._spec if structure is None else replace(structure.spec, effort=self._spec.effort)

    @property
    def effort(self) -> float:
        """How hard a search tries unless it says otherwise, in [0, 1]; it is saved with the index."""
        return self._spec.effort

    @effort.setter
    def effort(self, effort: float) -> None:
        self._spec = replace(self._spec, effort=effort)

    @property
    def device(self) -> Device:
        """Where the structure lives."""
        return self._device

    @property
    def dimension(self) -> int:
        """Of the rows."""
        return int(self._snapshot.rows.shape[1])

    @property
    def slots(self) -> int:
        """How many rows there are, dead ones too: the next row gets this id."""
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
            k: how many; min(k, live and allowed rows) come back.
            allowed: ids, or a mask (slots,), of what may be answered: then the search is exact, whatever the kind.
            effort: in [0, 1], how hard the structure is searched; the index's own where None.

        Raises:
            VectorError: queries that are not unit rows of the index's dimension.
            SpecError: k below 1, effort outside [0, 1], or ids that are no slots.
        """
        snapshot = self._snapshot
        queries = checked_rows(queries, dimension=snapshot.rows.shape[1])
        checked_count(k)
        effort = self._spec.effort if effort is None else checked_effort(effort)
        if allowed is not None:
            return snapshot.search_allowed(queries, k, allowed)
        return snapshot.search(queries, k, effort)

    def search_exactly(self, queries: Rows, k: int) -> Neighbors:
        """Return the truly nearest live rows, as `exact_search` finds them: what recall is measured against."""
        return self.search(queries, k, allowed=self._snapshot.live)

    def add(self, rows: Rows) -> Ids:
        """Append unit rows, (m, d), and return their ids, (m,). The first call copies a matrix that is not its own.

        Raises:
            VectorError: rows that are not unit rows of the index's dimension.
        """
        rows = checked_rows(rows, dimension=self.dimension)
        with self._changing:
            first = self.slots
            self._show(self._appended(rows))
        self.tidy()
        return np.arange(first, first + len(rows))

    def extend(self, rows: Rows) -> None:
        """Take over a longer matrix or memory map, (n, d), that starts with the rows known so far; nothing is copied.

        Raises:
            VectorError: it is shorter, starts with other rows, or its new rows are not unit rows.
        """
        self._take_over(rows)
        self.tidy()

    def remove(self, ids: Ids) -> None:
        """Answer these ids no more; removed ids may come again. Past a fifth dead the structure is built anew.

        Raises:
            SpecError: ids that are no slots.
        """
        self._bury(ids)
        self.tidy()

    def follow(self, rows: Rows, *, dead: Ids) -> None:
        """Do what `extend` and `remove` do but leave the structure alone: quick, until `tidy` does the rest.

        Raises:
            VectorError, SpecError: as there.
        """
        self._take_over(rows)
        self._bury(dead)

    @property
    def is_behind(self) -> bool:
        """Whether so many rows came by `follow` that reading them takes longer than a search of the structure."""
        return self.slots - self._snapshot.covered > TAIL

    def tidy(self) -> None:
        """Take in the rows that came, or build the structure anew where it has outgrown itself or is a fifth dead.

        Searches and changes go on meanwhile; what they see is what they would have seen without.

        Raises:
            DeviceError: as in `build`.
        """
        with self._tidying:
            snapshot = self._snapshot
            rows, live, structure = snapshot.rows, np.flatnonzero(snapshot.live), snapshot.structure
            behind = len(rows) - snapshot.covered > TAIL
            if behind and structure is not None and not structure.outgrown(len(live), GROWTH):
                structure.add(rows, structure.missing(live))
            elif behind or _is_fifth_dead(snapshot):
                structure = build_structure(rows, live, spec=self._spec, device=self._device)
            else:
                return
            with self._changing:
                self._snapshot = replace(self._snapshot, structure=structure, covered=len(rows))

    def save(self, path: Path) -> None:
        """Write the structure, the dead and the spec to one file, whole or not at all; the rows stay the caller's.

        Raises:
            StoredIndexError: the folder or the disk does not take it.
        """
        with self._tidying:
            snapshot = self._snapshot
            structure = snapshot.structure if self._spec.kind != "exact" else None
            stored = Stored(self._spec, snapshot.live, np.zeros_like(snapshot.live), None, 0, 0)
            if structure is not None:
                inside = mask_of(structure.slots, len(snapshot.live))
                stored = Stored(self._spec, snapshot.live, inside, structure.spec, structure.trained, snapshot.covered)
            write_stored(path, stored, snapshot.rows, structure=None if structure is None else structure.write)

    @classmethod
    def _built(cls, rows: Rows, live: Mask, device: Device, *, wish: Wanted) -> "VectorIndex":
        slots = np.flatnonzero(live)
        spec = _chosen_spec(wish, device, count=len(slots), dimension=rows.shape[1])
        structure = build_structure(rows, slots, spec=spec, device=device)
        covered = 0 if structure is None else len(rows)
        return cls(Snapshot(rows, live, len(slots), structure, covered), spec, device)

    @classmethod
    def _loaded(cls, path: Path, rows: Rows, device: Device, *, stored: Stored) -> "VectorIndex":
        if stored.structured is None:  # exact, or too few rows for its kind: built from the rows where needed
            return cls._built(rows, stored.live, device, wish=stored.spec)
        slots = np.flatnonzero(stored.inside)
        structure = read_structure(path, slots, spec=stored.structured, trained=stored.trained, device=device)
        count = int(np.count_nonzero(stored.live))
        return cls(Snapshot(rows, stored.live, count, structure, stored.covered), stored.spec, device)

    def _appended(self, rows: Rows) -> Rows:
        """Return the known rows and these, in a buffer with room for more; what a search sees of it never changes."""
        known = self._snapshot.rows
        count = len(known) + len(rows)
        if known.base is not self._buffer or count > len(self._buffer):
            self._buffer = np.empty((count + count // 2, self.dimension), np.float32)
            self._buffer[: len(known)] = known
        self._buffer[len(known) : count] = rows
        return self._buffer[:count]

    def _take_over(self, rows: Rows) -> None:
        rows = checked_matrix(rows, dimension=self.dimension)
        with self._changing:
            known = self._snapshot.rows
            if len(rows) < len(known) or rows_checksum(rows[: len(known)]) != rows_checksum(known):
                raise VectorError(
                    f"{len(rows):,} rows do not start with the {len(known):,} of the index: build it again"
                )
            checked_rows(rows[len(known) :])
            self._show(rows)

    def _show(self, rows: Rows) -> None:
        """Show the longer matrix to searches at once, as a tail that is searched exactly."""
        live = self._snapshot.live
        live = np.concatenate([live, np.ones(len(rows) - len(live), np.bool_)])
        self._snapshot = replace(self._snapshot, rows=rows, live=live, count=int(np.count_nonzero(live)))

    def _bury(self, ids: Ids) -> None:
        with self._changing:
            live = self._snapshot.live.copy()
            live[checked_ids(ids, len(live))] = False
            self._snapshot = replace(self._snapshot, live=live, count=int(np.count_nonzero(live)))


def _is_fifth_dead(snapshot: Snapshot) -> bool:
    structure = snapshot.structure
    return structure is not None and bool(np.mean(~snapshot.live[structure.slots]) > DEAD_SHARE)


def _at_home(wish: Wish, make: Callable[[Device], VectorIndex]) -> VectorIndex:
    """Make an index on the wished device; `auto` falls back to the CPU where the GPU cannot hold it."""
    home = chosen_device(wish)
    try:
        return make(home)
    except DeviceError:
        if home == "cpu" or wish == "cuda":
            raise
        return make("cpu")


def _chosen_spec(wish: Wanted, device: Device, *, count: int, dimension: int) -> IndexSpec:
    if isinstance(wish, IndexSpec):
        return wish
    if wish == "auto":
        return spec_for_here(count, dimension, device=device)
    return IndexSpec(wish)
