"""What the indexes of a catalog lose: recall through them, next to exact search over the same vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retrieval.metrics import KS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from index.vectors import Neighbors
    from retrieval.metrics import Ids, Relevance, Rows


class ServedSide(Protocol):
    """The images, or the captions, of a catalog: as its index answers, and as exact search would."""

    @property
    def kind(self) -> str:
        """What people read: `hnsw`, `ivf`."""

    def search(self, queries: Rows, k: int) -> Neighbors:
        """The k best slots of each query through the index, at its usual effort."""

    def exact(self, queries: Rows, k: int) -> Neighbors:
        """The k best slots of each query."""

    def slots_of(self, contents: Sequence[str]) -> Ids:
        """The slot of each content hash of a picture, or of each caption; -1 for what the catalog does not hold."""


class Served(Protocol):
    """Both sides of a catalog; None for one that is empty."""

    @property
    def images(self) -> ServedSide | None:
        """What text queries search."""

    @property
    def captions(self) -> ServedSide | None:
        """What image queries search."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Recall through an index, and by exact search over the same vectors.

    Attributes:
        kind: of the index.
        queries: how many were asked: those with a right answer in the catalog.
        left_out: how many were not.
        through_index: recall by K.
        exact: recall by K.
    """

    kind: str
    queries: int
    left_out: int
    through_index: dict[int, float]
    exact: dict[int, float]


def measure_index_recall(
    side: ServedSide | None, queries: Rows, right: Relevance, *, contents: Sequence[str], asked: Ids
) -> Gap | None:
    """Recall@K of the queries `asked` (numbers, with repeats) in a catalog that holds more, or less, than the targets.

    Args:
        side: what is searched; None measures nothing.
        queries: (q, d) unit rows.
        right: the right targets of each query.
        contents: what each target is, in the words of `ServedSide.slots_of`.
        asked: the number of the query, once for each time it counts; those without any right target never count.
    """
    if side is None:
        return None
    asked = asked[right.answers[asked] > 0]
    slot = side.slots_of(contents)[right.ids]
    there = slot >= 0
    query, slot = right.query_of_pair()[there], slot[there]
    chosen = np.unique(query)
    counted = np.isin(asked, chosen)
    if not counted.any():
        return Gap(side.kind, 0, len(asked), {}, {})
    place = np.searchsorted(chosen, asked[counted])  # where each query that counts stands among the chosen

    def recalls(search: Callable[[Rows, int], Neighbors]) -> dict[int, float]:
        hits = _hits(search(queries[chosen], max(KS)).ids, np.searchsorted(chosen, query), slot)[place]
        return {k: float(hits[:, :k].any(axis=1).mean()) for k in KS}

    left_out = len(asked) - len(place)
    return Gap(side.kind, len(place), left_out, recalls(side.search), recalls(side.exact))


def _hits(found: Ids, query: Ids, slot: Ids) -> NDArray[np.bool_]:
    """Which of the slots found, (q, k), are right, where (query, slot) are the right pairs."""
    width = max(int(found.max(initial=0)), int(slot.max())) + 1
    keys = np.arange(len(found))[:, None] * width + found  # (q, k)
    return np.asarray(np.isin(keys, query * width + slot))
