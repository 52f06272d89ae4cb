"""ivf: rows lie in lists by their nearest centroid; a search reads the lists nearest to the query."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from index.device import Device, load_faiss
from index.kinds.faiss_index import FaissKind

ROWS_PER_LIST = 39  # what FAISS asks for to train one centroid
TRAINING_ROWS_PER_LIST = 128  # FAISS would take up to 256
GPU_LIST_LIMIT = 2048  # FAISS on a GPU searches no more lists a query


@dataclass(frozen=True, slots=True)
class Ivf(FaissKind):
    """An inverted file of whole rows."""

    lists: int

    factory = "IVF{lists},Flat"

    def choose_sizes(self, count: int, dimension: int, *, device: Device = "cpu") -> Self:  # noqa: ARG002
        """Choose about 4 sqrt(n) lists, the middle of FAISS's guidelines, if the rows suffice to train them."""
        limit = GPU_LIST_LIMIT if device == "cuda" else count
        open_lists = min(round(4 * math.sqrt(count)), count // ROWS_PER_LIST, limit)
        return replace(self, lists=self.lists or max(1, open_lists))

    def configure(self, index: Any) -> None:
        """Have FAISS print no warning where rows are few."""
        index.cp.min_points_per_centroid = 1

    def training_rows(self) -> int:
        """Return what the centroids need."""
        return TRAINING_ROWS_PER_LIST * self.lists

    def search_parameters(self, effort: float, count: int) -> Any:  # noqa: ARG002
        """Return nprobe."""
        return load_faiss().SearchParametersIVF(nprobe=self.nprobe(effort))

    def nprobe(self, effort: float) -> int:
        """Return the lists that a search reads: lists^effort, so 1 at effort 0 and all at 1."""
        return max(1, round(math.pow(self.lists, effort)))

    def estimate_bytes(self, count: int, dimension: int, *, device: Device) -> int:
        """Count ids, rows and centroids."""
        lists = self.choose_sizes(count, dimension, device=device).lists
        return (count + lists) * (dimension * 4 + 16)

    def auto_reason(self, count: int, dimension: int, *, device: Device) -> str:  # noqa: ARG002
        """Prefer it where hnsw does not fit."""
        return "for each query is slow"

    def gpu_problem(self) -> str:
        """Limit the lists."""
        if self.lists <= GPU_LIST_LIMIT:
            return ""
        return f"{self.lists} lists are too many: a GPU searches at most {GPU_LIST_LIMIT}. Use fewer lists."

    def min_rows(self) -> int:
        """Return one for each list."""
        return max(1, self.lists)

    def scores_every_row(self, effort: float) -> bool:
        """Return whether a search reads every list."""
        return self.nprobe(effort) == self.lists
