"""Words and vectors together: items that a text names first, then those that either finds, by reciprocal ranks."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from retrieval.catalog.fusion import reciprocal_rank_fusion
from retrieval.catalog.ranked import Ranked
from retrieval.records.word_search import Worded

Ranks: TypeAlias = Mapping[int, Mapping[str, int]]

PARTS: Final = ("name", "words", "vectors")

CONSTANT: Final = 10.0
"""Of the fusion; less than the published 60, so that the first places of a part count for more."""

WORDS: Final = 8.0
"""The weight of the words beside 1 of the vectors, where an item has all that the query says.

Both by `benchmarks/product_search.py`: with 60 and 1 the vectors of a small encoder spoil what words have found. A part
of what is said counts by its square: of "something to carry my gym clothes" only "gym" is a word of bags.
"""

_NAMED: Final = 1000.0  # the weight of being named: no rank among words and vectors makes up for it


def hybrid(named: Sequence[int], worded: Sequence[Worded], found: Ranked, *, weight: float) -> tuple[Ranked, Ranks]:
    """Return the items of any part, best first, and the rank that each has in every part that it is in.

    Args:
        named: Items that the text names by an identifier.
        worded: Items that have its words, best first.
        found: What is found by vector, best first.
        weight: Of the words, as a factor of `WORDS`.
    """
    fit = max((one.fit for one in worded), default=0.0)
    lists = [named, [one.item for one in worded], found.item.tolist()]
    weights = [_NAMED, weight * WORDS * fit**2, 1.0]
    fused = reciprocal_rank_fusion(lists, weights=weights, constant=CONSTANT)
    ranks = {
        one.item: {part: rank for part, rank in zip(PARTS, one.ranks, strict=True) if rank is not None} for one in fused
    }
    return _ranked([one.item for one in fused], [one.score for one in fused], found), ranks


def first_named(named: Sequence[int], worded: Sequence[Worded]) -> Ranked:
    """Return the items that have the words, best first, those that are named before all others.

    A named one's score is the best of all, so that scores never rise.
    """
    scores = {one.item: one.score for one in worded}
    best = max(scores.values(), default=0.0)
    rest = [one.item for one in worded if one.item not in set(named)]
    return _ranked([*named, *rest], [best] * len(named) + [scores[item] for item in rest], None)


def _ranked(items: Sequence[int], scores: Sequence[float], found: Ranked | None) -> Ranked:
    """The items with the position of the picture that was found by vector, else of the first one."""
    numbers = np.array(items, np.int64)
    positions = np.zeros(len(numbers), np.int64)
    if found is not None:
        places = dict(zip(found.item.tolist(), found.position.tolist(), strict=True))
        positions = np.array([places.get(item, 0) for item in items], np.int64)
    return Ranked(numbers, positions, np.array(scores, np.float64))
