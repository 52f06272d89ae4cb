"""Words and vectors together: items that a text names first, then those that either finds, by reciprocal ranks."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from retrieval.catalog.fusion import reciprocal_rank_fusion
from retrieval.catalog.ranked import Ranked
from retrieval.records.word_search import Worded

Ranks: TypeAlias = Mapping[int, Mapping[str, int]]

PARTS: Final = ("name", "words", "vectors")

_NAMED: Final = 1000.0  # the weight of being named: no rank among words and vectors makes up for it


def hybrid(named: Sequence[int], worded: Sequence[Worded], found: Ranked, *, weight: float) -> tuple[Ranked, Ranks]:
    """Return the items of any part, best first, and the rank that each has in every part that it is in.

    Args:
        named: Items that the text names by an identifier.
        worded: Items that have its words, best first.
        found: What is found by vector, best first.
        weight: Of the words, beside 1 of the vectors.
    """
    lists = [named, [one.item for one in worded], found.item.tolist()]
    fused = reciprocal_rank_fusion(lists, weights=[_NAMED, weight, 1.0])
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
