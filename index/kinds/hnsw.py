"""hnsw: a search walks a graph of near rows (Malkov and Yashunin 2016, arXiv 1603.09320)."""

import math
from dataclasses import dataclass
from typing import Any

from index.device import Device, load_faiss
from index.kinds.faiss_index import FaissKind


@dataclass(frozen=True, slots=True)
class Hnsw(FaissKind):
    """A hierarchical navigable small world graph."""

    links: int
    build_effort: int

    factory = "HNSW{links},Flat"

    def configure(self, index: Any) -> None:
        """Set the number of candidates looked at to place a row."""
        index.hnsw.efConstruction = self.build_effort

    def search_parameters(self, effort: float, count: int) -> Any:
        """Return efSearch."""
        return load_faiss().SearchParametersHNSW(efSearch=self.ef_search(effort, count))

    def ef_search(self, effort: float, k: int) -> int:
        """Return the candidates that a walk keeps: 16 x 256^effort, at least k."""
        return max(k, round(16 * math.pow(256, effort)))

    def estimate_bytes(self, count: int, dimension: int, *, device: Device) -> int:  # noqa: ARG002
        """Count the row, 2 x links at the bottom and links on each layer above, which one row in `links` reaches."""
        upper_layers = self.links / (self.links - 1)
        return round(count * (dimension * 4 + (2 * self.links + upper_layers) * 4 + 28))

    def auto_reason(self, count: int, dimension: int, *, device: Device) -> str:  # noqa: ARG002
        """Prefer it on a CPU."""
        return "for each query is slow" if device == "cpu" else ""

    def gpu_problem(self) -> str:
        """Refuse every GPU."""
        return "FAISS has no hnsw on a GPU. Use exact, ivf or ivfpq, or device='cpu'."
