"""Several rankings of items fused into one: reciprocal-rank fusion, and hybrid search by words and vectors on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.vectors import Ids, find_distinct
from retrieval.catalog.ranking import Ranking
from retrieval.words.search import WordHit

CONSTANT: Final = 60.0
"""As published; the greater it is, the less the first ranks of one list count against being in several lists."""

HYBRID_CONSTANT: Final = 10.0
"""Of hybrid search; less than the published 60, so that the first ranks of a part count for more."""

WORD_WEIGHT: Final = 8.0
"""The weight of words beside 1 of vectors, for a query whose words one item has all of.

Both by `benchmarks/product_search.py`: with 60 and 1 the vectors of a small encoder spoil what words have found. A
query of which an item has only part weighs the square of that part: of "something to carry my gym clothes" only "gym"
is a word of bags.
"""

PARTS: Final = ("name", "words", "vectors")
"""The parts of a hybrid search."""

_NAME_WEIGHT: Final = 1000.0  # an item whose identifier was typed outranks all others


@dataclass(frozen=True, slots=True)
class FusedRanking:
    """A fused ranking, best first."""

    items: NDArray[np.int64]  # numbers of the items, (n,)
    scores: NDArray[np.float64]  # sum over the lists that an item is in of weight / (constant + rank), (n,)
    ranks: NDArray[np.int64]  # its rank in each list, from 1; 0 where it is not in the list, (n, lists)

    def ranks_of(self, items: Ids) -> dict[int, dict[str, int]]:
        """Return the rank of each of these items in every part of a hybrid search that found it."""
        rows = np.flatnonzero(np.isin(self.items, items))
        return {
            item: {part: rank for part, rank in zip(PARTS, ranks, strict=True) if rank}
            for item, ranks in zip(self.items[rows].tolist(), self.ranks[rows].tolist(), strict=True)
        }


def reciprocal_rank_fusion(
    lists: Sequence[ArrayLike], *, weights: Sequence[float] | None = None, constant: float = CONSTANT
) -> FusedRanking:
    """Return every item of any list, best first; equal scores by item number.

    Args:
        lists: Item numbers, best first; an item that is in a list twice counts at its first place.
        weights: One for each list; ones where None.
        constant: Added to every rank.

    Source: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.
    """
    weights = [1.0] * len(lists) if weights is None else weights
    columns = [np.asarray(items, np.int64) for items in lists]
    items = find_distinct(np.concatenate(columns)) if columns else np.empty(0, np.int64)
    ranks = np.zeros((len(items), len(lists)), np.int64)
    scores = np.zeros(len(items))
    for number, (column, weight) in enumerate(zip(columns, weights, strict=True)):
        members, first = np.unique(column, return_index=True)
        rows = np.searchsorted(items, members)
        ranks[rows, number] = first + 1
        scores[rows] += weight / (constant + first + 1)
    order = np.lexsort((items, -scores))
    return FusedRanking(items[order], scores[order], ranks[order])


def fuse_words_and_vectors(
    named: Sequence[int], by_words: Sequence[WordHit], by_vector: Ranking, *, word_weight: float
) -> tuple[Ranking, FusedRanking]:
    """Return the items of any part, best first, and their ranks in each of `PARTS`.

    Args:
        named: Items whose identifier is in the text.
        by_words: Items found by words, best first.
        by_vector: Items found by vector, best first.
        word_weight: Factor of `WORD_WEIGHT`.
    """
    fit = max((one.coverage for one in by_words), default=0.0)
    lists = [np.array(named, np.int64), np.array([one.item for one in by_words], np.int64), by_vector.item]
    weights = [_NAME_WEIGHT, word_weight * WORD_WEIGHT * fit**2, 1.0]
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=HYBRID_CONSTANT)
    ranks = fused.ranks[:, PARTS.index("vectors")]
    positions = np.zeros(len(fused.items), np.int64)  # of the picture found by vector, else the item's first one
    positions[ranks > 0] = by_vector.position[ranks[ranks > 0] - 1]
    return Ranking(fused.items, positions, fused.scores), fused


def rank_by_words(named: Sequence[int], by_words: Sequence[WordHit]) -> Ranking:
    """Return the items found by words, best first, those that the text names before all others.

    A named item has at least the best score of all, so that scores never rise.
    """
    best = max((one.score for one in by_words), default=0.0)
    scores = dict.fromkeys(named, best) | {one.item: one.score for one in by_words if one.item not in named}
    items, values = np.array(list(scores), np.int64), np.array(list(scores.values()), np.float64)
    return Ranking(items, np.zeros(len(scores), np.int64), values)
