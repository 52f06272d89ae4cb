"""Words and vectors together: items that a text names first, then those that either finds, by reciprocal ranks."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from index.vectors import Ids
from retrieval.catalog.ranking import Ranking
from retrieval.catalog.search.rank_fusion import Fused, reciprocal_rank_fusion
from retrieval.words.search import WordHit

PARTS: Final = ("name", "words", "vectors")

CONSTANT: Final = 10.0
"""Of the fusion; less than the published 60, so that the first places of a part count for more."""

WORDS: Final = 8.0
"""The weight of the words beside 1 of the vectors, where an item has all that the query says.

Both by `benchmarks/product_search.py`: with 60 and 1 the vectors of a small encoder spoil what words have found. A part
of what is said counts by its square: of "something to carry my gym clothes" only "gym" is a word of bags.
"""

_NAMED: Final = 1000.0  # the weight of being named: no rank among words and vectors makes up for it


def hybrid(named: Sequence[int], worded: Sequence[WordHit], found: Ranking, *, weight: float) -> tuple[Ranking, Fused]:
    """Return the items of any part, best first, and the rank that each has in every one of `PARTS`.

    Args:
        named: Items that the text names by an identifier.
        worded: Items that have its words, best first.
        found: What is found by vector, best first.
        weight: Of the words, as a factor of `WORDS`.
    """
    fit = max((one.coverage for one in worded), default=0.0)
    lists = [np.array(named, np.int64), np.array([one.item for one in worded], np.int64), found.item]
    weights = [_NAMED, weight * WORDS * fit**2, 1.0]
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=CONSTANT)
    by_vector = fused.ranks[:, PARTS.index("vectors")]
    positions = np.zeros(len(fused.items), np.int64)  # of the picture that was found by vector, else the first one
    positions[by_vector > 0] = found.position[by_vector[by_vector > 0] - 1]
    return Ranking(fused.items, positions, fused.scores), fused


def ranks_of(fused: Fused, items: Ids) -> dict[int, dict[str, int]]:
    """Return the rank of each of these items in the parts that it is in."""
    places = np.flatnonzero(np.isin(fused.items, items))
    return {
        item: {part: rank for part, rank in zip(PARTS, ranks, strict=True) if rank}
        for item, ranks in zip(fused.items[places].tolist(), fused.ranks[places].tolist(), strict=True)
    }


def first_named(named: Sequence[int], worded: Sequence[WordHit]) -> Ranking:
    """Return the items that have the words, best first, those that are named before all others.

    A named one's score is the best of all, so that scores never rise.
    """
    best = max((one.score for one in worded), default=0.0)
    scores = dict.fromkeys(named, best) | {one.item: one.score for one in worded if one.item not in named}
    return Ranking(
        np.array(list(scores), np.int64), np.zeros(len(scores), np.int64), np.array(list(scores.values()), np.float64)
    )
