"""The loss of a catalog's indexes: recall through them, beside exact search over the same vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retrieval.metrics import KS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from index.vectors import Neighbors
    from retrieval.metrics import Ids, Relevance, Rows


class SideIndex(Protocol):
    """The images, or the captions, of a catalog, searched through the index and exactly."""

    @property
    def kind(self) -> str:
        """The index kind: `hnsw`, `ivf`."""

    def search(self, queries: Rows, k: int) -> Neighbors:
        """Return the k best slots of each query through the index, at its usual effort."""

    def exact(self, queries: Rows, k: int) -> Neighbors:
        """Return the k best slots of each query."""

    def slots_of(self, contents: Sequence[str]) -> Ids:
        """Return the slot of each picture's content hash, or of each caption; -1 for what the catalog lacks."""


class CatalogIndexes(Protocol):
    """Both sides of a catalog; None for an empty one."""

    @property
    def images(self) -> SideIndex | None:
        """The side that text queries search."""

    @property
    def captions(self) -> SideIndex | None:
        """The side that image queries search."""


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """Recall through an index, and by exact search over the same vectors."""

    kind: str  # the index kind
    queries: int  # the number of queries with a relevant answer in the catalog
    left_out: int  # the number of queries without one
    through_index: dict[str, float]  # `recall@1` and so on
    exact: dict[str, float]  # the same by exact search

    def table_line(self, direction: str) -> str:
        """Return a line of the report's table, or two."""
        pairs = ((name, value, self.exact[name]) for name, value in self.through_index.items())
        recalls = [f"R@{name[7:]} {100 * value:.1f} ({100 * exact:.1f})" for name, value, exact in pairs]
        line = f"{direction}  {self.kind:<5}  {'  '.join(recalls)}".rstrip()
        if not self.left_out:
            return line
        return f"{line}\n{'':14}{self.left_out:,} queries left out: the catalog holds none of their relevant answers"


def measure_index_recall(
    side: SideIndex | None, queries: Rows, relevance: Relevance, *, contents: Sequence[str], asked: Ids
) -> IndexRecall | None:
    """Measure recall@K of queries in a catalog that may hold more, or less, than their targets.

    Args:
        side: The side to search; nothing is measured without one.
        queries: (q, d) unit rows.
        relevance: The relevant targets of each query.
        contents: The targets, as `SideIndex.slots_of` takes them.
        asked: The numbers of the queries, each as often as it counts; those without a relevant target never count.
    """
    if side is None:
        return None
    asked = asked[relevance.answers[asked] > 0]
    slot = side.slots_of(contents)[relevance.ids]
    query, slot = relevance.query_of_pair()[slot >= 0], slot[slot >= 0]
    searched = np.unique(query)
    counted = np.isin(asked, searched)
    if not counted.any():
        return IndexRecall(side.kind, 0, len(asked), {}, {})
    row = np.searchsorted(searched, asked[counted])  # the row of each counted query among the searched ones
    query_row = np.searchsorted(searched, query)

    def recalls(search: Callable[[Rows, int], Neighbors]) -> dict[str, float]:
        ids = search(queries[searched], max(KS)).ids
        width = max(int(ids.max(initial=0)), int(slot.max())) + 1
        keys = np.arange(len(ids))[:, None] * width + ids  # (q, k), a number for each (query, slot)
        is_hit = np.isin(keys, query_row * width + slot)[row]
        return {f"recall@{k}": float(is_hit[:, :k].any(axis=1).mean()) for k in KS}

    return IndexRecall(side.kind, len(row), len(asked) - len(row), recalls(side.search), recalls(side.exact))
