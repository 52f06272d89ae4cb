"""FAISS as an engine: the base of the kinds that FAISS builds, and their candidate index."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from index.candidates import IndexKind
from index.device import GPU_RESULT_LIMIT, Device, copy_to_gpu, faiss_problem, load_faiss, translate_gpu_errors
from index.errors import DeviceError, StoredIndexError
from index.rwlock import ReadWriteLock
from index.vectors import Ids, Rows

CHUNK = 128  # rows added at once: searches wait no longer than for these
BUILD_CHUNK = 8192  # while no search can run yet
GPU_CHUNK = 1 << 20  # a GPU copies the whole index at each addition


@dataclass(frozen=True, slots=True)
class FaissKind(IndexKind):
    """A kind that FAISS builds from a factory string."""

    factory: ClassVar[str]  # the argument of FAISS's index_factory, as a format string of the sizes
    float16_on_gpu: ClassVar[bool] = False

    def engine_problem(self) -> str:
        """See `IndexKind.engine_problem`."""
        return faiss_problem()

    def configure(self, index: Any) -> None:
        """Set what the factory string cannot say, on the untrained FAISS index."""

    def training_rows(self) -> int:
        """Return the most rows that training uses; 0 where the kind needs no training."""
        return 0

    def search_parameters(self, effort: float, count: int) -> Any:  # noqa: ARG002 - for subclasses
        """Return FAISS's parameters for one search: passed by value, so that searches do not disturb each other."""
        return None

    def build(self, rows: Rows, slots: Ids, *, device: Device) -> "FaissCandidates | None":
        """See `IndexKind.build`."""
        self._check_device(device)
        if len(slots) < self.min_rows():
            return None
        faiss = load_faiss()
        # The factory alone takes the metric for every kind: a constructor means L2.
        index = faiss.index_factory(rows.shape[1], self.factory.format(**asdict(self)), faiss.METRIC_INNER_PRODUCT)
        self.configure(index)
        index = copy_to_gpu(index, float16=self.float16_on_gpu) if device == "cuda" else index
        with translate_gpu_errors(device):
            index.train(_take_rows(rows, self.training_sample(slots)))
        built = FaissCandidates(index, self, slots[:0], len(slots), device)
        built.add(rows, slots, chunk=BUILD_CHUNK)
        return built

    def load(self, path: Path, slots: Ids, *, dimension: int, trained: int, device: Device) -> "FaissCandidates":
        """See `IndexKind.load`; on a CPU the file is memory-mapped, and a search reads what it needs."""
        self._check_device(device)
        faiss = load_faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            text = " ".join(str(error).split())[-200:]
            raise StoredIndexError(f"FAISS cannot read {path} ({text}). Delete it and build it again.") from error
        if (index.ntotal, index.d) != (len(slots), dimension):
            held, expected = f"{index.ntotal} rows of {index.d}", f"{len(slots)} of {dimension} are expected"
            raise StoredIndexError(f"{path} holds {held}, and {expected}. Delete it and build it again.")
        if device == "cuda":
            index = copy_to_gpu(index, float16=self.float16_on_gpu)
        return FaissCandidates(index, self, slots, trained, device, mapped=device == "cpu")

    def training_sample(self, slots: Ids) -> Ids:
        """Return the slots to train with, the same at each call."""
        if self.training_rows() >= len(slots):
            return slots
        return np.sort(np.random.default_rng(0).choice(slots, self.training_rows(), replace=False))

    def _check_device(self, device: Device) -> None:
        if device == "cuda" and self.gpu_problem():
            raise DeviceError(self.gpu_problem())


@dataclass(slots=True)
class FaissCandidates:
    """A trained FAISS index as a `CandidateIndex`; FAISS numbers the rows in the order of `slots`."""

    index: Any
    kind: FaissKind
    slots: Ids
    trained: int
    device: Device
    mapped: bool = False
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)  # FAISS allows no search while its index grows

    def add(self, rows: Rows, slots: Ids, *, chunk: int | None = None) -> None:
        """Index rows[slots] too, `chunk` at once; searches go on between chunks and may see the first of them."""
        if self.mapped:  # FAISS ends the process when a memory map is to grow
            faiss = load_faiss()
            with self.lock.read():
                index = faiss.deserialize_index(faiss.serialize_index(self.index))
            with self.lock.write():
                self.index, self.mapped = index, False
        chunk = GPU_CHUNK if self.device == "cuda" else chunk or CHUNK
        for start in range(0, len(slots), chunk):
            part = slots[start : start + chunk]
            block = _take_rows(rows, part)
            with self.lock.write(), translate_gpu_errors(self.device):
                self.index.add(block)
                self.slots = np.concatenate([self.slots, part])

    def candidates(self, queries: Rows, count: int, effort: float) -> Ids:
        """Return the slots of up to `count` candidates a query, (q, count), best first, padded with -1.

        A GPU returns 2,048 at most: of more it returns none, and the caller searches exactly.
        """
        if self.device == "cuda" and count > GPU_RESULT_LIMIT:
            return np.full((len(queries), 1), -1, np.int64)
        # A GPU index allows one search at a time.
        with self.lock.write() if self.device == "cuda" else self.lock.read(), translate_gpu_errors(self.device):
            _, positions = self.index.search(queries, count, params=self.kind.search_parameters(effort, count))
            known = (positions >= 0) & (positions < len(self.slots))
            return np.where(known, self.slots[np.where(known, positions, 0)], -1)

    def needs_rebuild(self, count: int, *, growth: float) -> bool:
        """Whether `count` rows outgrow the training, or an interrupted `add` left FAISS rows without slots."""
        outgrown = self.kind.training_rows() > 0 and count > growth * self.trained
        return outgrown or self.index.ntotal != len(self.slots)

    def save(self, path: Path) -> None:
        """Write the FAISS index to a new file."""
        with self.lock.read():
            index = load_faiss().index_gpu_to_cpu(self.index) if self.device == "cuda" else self.index
            load_faiss().write_index(index, str(path))


def _take_rows(rows: Rows, slots: Ids) -> Rows:
    """Return rows[slots], ascending slots, without a copy where they follow each other."""
    if len(slots) and slots[-1] - slots[0] == len(slots) - 1:
        return np.ascontiguousarray(rows[slots[0] : slots[-1] + 1])
    return rows[slots]
