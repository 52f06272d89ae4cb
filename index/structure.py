"""Structure: a FAISS index over some of the rows. It names candidates; scores and ranking are made elsewhere."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.device import (
    GPU_RESULT_LIMIT,
    Device,
    checked_for_gpu,
    errors_of,
    load_faiss,
    to_cpu,
    to_gpu,
)
from index.errors import StoredIndexError
from index.rwlock import ReadWriteLock
from index.spec import GPU_LIST_LIMIT, IndexSpec
from index.vectors import Ids, Rows

CHUNK = 128  # rows added at once: searches wait no longer than for these
BUILD_CHUNK = 8192  # where nobody searches yet
GPU_CHUNK = 1 << 20  # a GPU copies what it has at each addition
POINTS_A_LIST = 128  # rows that train one centroid; FAISS would take up to 256
POINTS_A_CODE = 64


@dataclass(slots=True)
class Structure:
    """A trained FAISS index; `slots` (m,), ascending, are the rows' numbers in the order in which it knows them."""

    index: Any
    spec: IndexSpec
    slots: Ids
    trained: int
    device: Device
    mapped: bool = False
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)

    def add(self, rows: Rows, slots: Ids, *, chunk: int | None = None) -> None:
        """Index rows[slots] too, by one thread at a time; searches go on between chunks and may see the first of them.

        Args:
            rows: all of them, (n, d).
            slots: ascending, after the last one known.
            chunk: rows at once; None for what searches can wait for.
        """
        if self.mapped:  # FAISS ends the process when a memory map is to grow
            faiss = load_faiss()
            with self.lock.read():
                index = faiss.deserialize_index(faiss.serialize_index(self.index))
            with self.lock.write():
                self.index, self.mapped = index, False
        chunk = GPU_CHUNK if self.device == "cuda" else chunk or CHUNK
        for start in range(0, len(slots), chunk):
            part = slots[start : start + chunk]
            block = _taken(rows, part)
            with self.lock.write(), errors_of(self.device):
                self.index.add(block)
                self.slots = np.concatenate([self.slots, part])

    def candidates(self, queries: Rows, count: int, effort: float) -> Ids:
        """Return the slots of up to `count` candidates a query, (q, count), filled up with -1, best first.

        A GPU returns 2,048 at most: of more it returns none, and the caller searches exactly.
        """
        if self.device == "cuda" and count > GPU_RESULT_LIMIT:
            return np.full((len(queries), 1), -1, np.int64)
        lock = self.lock.write() if self.device == "cuda" else self.lock.read()  # GPU indexes bear one search a time
        with lock, errors_of(self.device):
            _, places = self.index.search(queries, count, params=self._dial(effort, count))
            known = (places >= 0) & (places < len(self.slots))
            return np.where(known, self.slots[np.where(known, places, 0)], -1)

    def looks_everywhere(self, effort: float) -> bool:
        """Whether a search of that effort computes every row's exact product, but for rounding."""
        return self.spec.kind == "exact" or (self.spec.kind == "ivf" and self.spec.probes(effort) == self.spec.lists)

    def missing(self, slots: Ids) -> Ids:
        """Return those of `slots`, ascending, that come after the last one known."""
        return slots[np.searchsorted(slots, self.slots[-1], side="right") :] if len(self.slots) else slots

    def outgrown(self, count: int, growth: float) -> bool:
        """Whether centroids were trained on too few rows for so many, or a broken-off `add` left it in disorder."""
        trained = self.spec.kind in {"ivf", "ivfpq"} and count > growth * self.trained
        return trained or self.index.ntotal != len(self.slots)

    def write(self, path: Path) -> None:
        """Write the FAISS index to a new file."""
        with self.lock.read():
            index = to_cpu(self.index) if self.device == "cuda" else self.index
            load_faiss().write_index(index, str(path))

    def _dial(self, effort: float, count: int) -> Any:
        """Return the effort as FAISS takes it with one search: by value, so that searches do not disturb each other."""
        faiss = load_faiss()
        if self.spec.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=self.spec.beam(effort, count))
        if self.spec.kind in {"ivf", "ivfpq"}:
            return faiss.SearchParametersIVF(nprobe=self.spec.probes(effort))
        return None


def build_structure(rows: Rows, slots: Ids, *, spec: IndexSpec, device: Device) -> Structure | None:
    """Return a structure over rows[slots], or None where none is needed or the rows are too few to train it.

    Raises:
        DeviceError: no FAISS, or the GPU cannot hold it.
        SpecError: sizes that do not go with the dimension.
    """
    sized = _sized_for(device, spec, count=len(slots), dimension=rows.shape[1])
    if (sized.kind == "exact" and device == "cpu") or len(slots) < sized.least_rows():
        return None
    index = _empty(sized, rows.shape[1])
    index = to_gpu(index) if device == "cuda" else index
    with errors_of(device):
        index.train(_taken(rows, _sample(slots, sized)))
    structure = Structure(index, sized, slots[:0], len(slots), device)
    structure.add(rows, slots, chunk=BUILD_CHUNK)
    return structure


def _sized_for(device: Device, spec: IndexSpec, *, count: int, dimension: int) -> IndexSpec:
    sized = spec.sized(count, dimension)
    if device == "cpu":
        return sized
    return checked_for_gpu(sized if spec.lists else replace(sized, lists=min(sized.lists, GPU_LIST_LIMIT)))


def _empty(spec: IndexSpec, dimension: int) -> Any:
    """Return the untrained FAISS index. The factory alone takes the metric for every kind: a constructor means L2."""
    faiss = load_faiss()
    keys = {
        "exact": "Flat",
        "hnsw": f"HNSW{spec.links},Flat",
        "ivf": f"IVF{spec.lists},Flat",
        "ivfpq": f"IVF{spec.lists},PQ{spec.codes}x{spec.code_bits}",
    }
    index = faiss.index_factory(dimension, keys[spec.kind], faiss.METRIC_INNER_PRODUCT)
    if spec.kind == "hnsw":
        index.hnsw.efConstruction = spec.build_effort
    if spec.kind in {"ivf", "ivfpq"}:
        index.cp.min_points_per_centroid = 1  # few rows are no reason to print a warning
    if spec.kind == "ivfpq":
        index.pq.cp.min_points_per_centroid = 1
        index.do_polysemous_training = False  # 60 s of training against 13, for a way of searching not used here
    return index


def _taken(rows: Rows, slots: Ids) -> Rows:
    """Return rows[slots], ascending slots, without a copy where they follow each other."""
    if len(slots) and slots[-1] - slots[0] == len(slots) - 1:
        return np.ascontiguousarray(rows[slots[0] : slots[-1] + 1])
    return rows[slots]


def _sample(slots: Ids, spec: IndexSpec) -> Ids:
    """Return the slots to train with: what centroids and codes need, drawn alike each time."""
    points = max(POINTS_A_LIST * spec.lists, POINTS_A_CODE << spec.code_bits if spec.kind == "ivfpq" else 0)
    if points >= len(slots):
        return slots
    return np.sort(np.random.default_rng(0).choice(slots, points, replace=False))


def read_structure(path: Path, slots: Ids, *, spec: IndexSpec, trained: int, device: Device) -> Structure:
    """Return the structure that `write` wrote; on a CPU it is memory-mapped and reads what the searches need.

    Raises:
        StoredIndexError: FAISS cannot read it, or it holds another number of rows.
    """
    faiss = load_faiss()
    if device == "cuda":
        checked_for_gpu(spec)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        words = " ".join(str(error).split())[-200:]
        raise StoredIndexError(f"FAISS cannot read {path} ({words}): delete it and build it again") from error
    if index.ntotal != len(slots):
        raise StoredIndexError(f"{path} holds {index.ntotal} rows where {len(slots)} are named: delete it and build it")
    if device == "cuda":
        return Structure(to_gpu(index), spec, slots, trained, device)
    return Structure(index, spec, slots, trained, device, mapped=True)
