"""The seam to a search engine: an IndexKind builds a CandidateIndex, which names candidates for the nearest rows.

Scores, filters and ranking do not belong to the engine: `VectorIndex` makes them from the stored rows, so that every
kind returns exact cosines.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from index.device import Device
from index.vectors import Ids, Rows


class CandidateIndex(Protocol):
    """An index of some of the rows. Any number of threads may search and save it while one adds.

    Removed rows stay in it: the caller drops them from the candidates, and rebuilds it once a fifth are dead.
    """

    trained: int  # number of rows that it was trained for

    @property
    def slots(self) -> Ids:
        """The numbers of the indexed rows, (m,), ascending."""

    @property
    def kind(self) -> "IndexKind":
        """The kind, with the sizes that it was built with."""

    def add(self, rows: Rows, slots: Ids) -> None:
        """Index rows[slots] too; `slots` are ascending and come after the last indexed one."""

    def candidates(self, queries: Rows, count: int, effort: float) -> Ids:
        """Return the slots of about `count` candidates a query, (q, count), best first, padded with -1."""

    def needs_rebuild(self, count: int, *, growth: float) -> bool:
        """Whether `count` rows are more than `growth` times those that it was trained for, or it is inconsistent."""

    def save(self, path: Path) -> None:
        """Write it to a new file, which then grows: the slots and what describes the index follow these bytes."""


@dataclass(frozen=True, slots=True)
class IndexKind(ABC):
    """A way to index rows, which `index.kinds` says how to add. Its errors are those of `index.errors`.

    A subclass is a frozen dataclass of the sizes that it uses: fields of `IndexSpec`, by the same names, no defaults.
    """

    def choose_sizes(self, count: int, dimension: int, *, device: Device = "cpu") -> Self:  # noqa: ARG002 - for subclasses
        """Return the kind with its open sizes (0) chosen for `count` rows; a SpecError if sizes do not fit them."""
        return self

    @abstractmethod
    def estimate_bytes(self, count: int, dimension: int, *, device: Device) -> int:
        """Return the bytes of an index beside the rows: the engine's, and 8 a slot; within a tenth from 1,000 rows."""

    def engine_problem(self) -> str:
        """Return that the engine's package is not installed, and the command, or "". It must not load the package."""
        return ""

    def gpu_problem(self) -> str:
        """Return why a GPU cannot hold this kind and sizes, and what to do, or an empty string."""
        return ""

    def auto_reason(self, count: int, dimension: int, *, device: Device) -> str:  # noqa: ARG002 - for subclasses
        """Return why `auto` would choose this kind, continuing "reading all rows", or "": it never does."""
        return ""

    def min_rows(self) -> int:
        """Return the rows needed to train an index of these sizes; fewer are searched exactly."""
        return 1

    def depth(self, effort: float, k: int) -> int:  # noqa: ARG002 - for subclasses
        """Return how many candidates to score for k results."""
        return k + 8

    def scores_every_row(self, effort: float) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a search of that effort computes every row's product, exactly but for rounding, ties included."""
        return False

    @abstractmethod
    def build(self, rows: Rows, slots: Ids, *, device: Device) -> CandidateIndex | None:
        """Return an index of rows[slots], or None where exact search needs none or the slots, even none, are too few.

        A DeviceError if the engine's package is missing, or the device cannot hold the index.
        """

    @abstractmethod
    def load(self, path: Path, slots: Ids, *, dimension: int, trained: int, device: Device) -> CandidateIndex:
        """Return the index of these slots that `save` wrote at the start of the file, or raise a StoredIndexError."""
