"""Several rankings of items made into one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONSTANT = 60.0
"""As published; it says how little the first places of one list count against being in several lists."""


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused ranking, best first.

    Attributes:
        items: Numbers of the items, (n,).
        scores: Sum over the lists that an item is in of weight / (constant + rank), (n,).
        ranks: Its rank in each list, from 1; 0 where it is not in the list, (n, lists).
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]


def reciprocal_rank_fusion(
    lists: Sequence[ArrayLike], *, weights: Sequence[float] | None = None, constant: float = CONSTANT
) -> Fused:
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
    items = np.unique(np.concatenate(columns)) if columns else np.empty(0, np.int64)
    ranks = np.zeros((len(items), len(lists)), np.int64)
    scores = np.zeros(len(items))
    for place, (column, weight) in enumerate(zip(columns, weights, strict=True)):
        own, first = np.unique(column, return_index=True)
        rows = np.searchsorted(items, own)
        ranks[rows, place] = first + 1
        scores[rows] += weight / (constant + first + 1)
    order = np.lexsort((items, -scores))
    return Fused(items[order], scores[order], ranks[order])
