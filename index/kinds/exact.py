"""exact: every row is read. On a CPU numpy does so without an index; a GPU holds the rows."""

from dataclasses import dataclass

from index.device import Device
from index.kinds.faiss_index import FaissCandidates, FaissKind
from index.vectors import Ids, Rows

MAX_NUMBERS = {
    "cpu": 128_000_000,  # 250,000 rows of 512: read in 9 ms a query on two cores, and never wrong
    "cuda": 8_000_000_000,  # 32 GB, read in some ten milliseconds
}


@dataclass(frozen=True, slots=True)
class Exact(FaissKind):
    """Brute force."""

    factory = "Flat"

    def estimate_bytes(self, count: int, dimension: int, *, device: Device) -> int:
        """Return the bytes of rows and ids on a GPU, and 0 on a CPU."""
        return count * (dimension * 4 + 8) if device == "cuda" else 0

    def auto_reason(self, count: int, dimension: int, *, device: Device) -> str:
        """Prefer it while reading every row is quick."""
        return "takes milliseconds and misses none" if count * dimension <= MAX_NUMBERS[device] else ""

    def engine_problem(self) -> str:
        """Return "": a CPU needs no FAISS, and a GPU is not taken without."""
        return ""

    def scores_every_row(self, effort: float) -> bool:  # noqa: ARG002
        """Return True at any effort."""
        return True

    def build(self, rows: Rows, slots: Ids, *, device: Device) -> FaissCandidates | None:
        """Build one on a GPU only."""
        return FaissKind.build(self, rows, slots, device=device) if device == "cuda" else None
