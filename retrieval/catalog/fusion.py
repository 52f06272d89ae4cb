"""Several rankings of items made into one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONSTANT = 60.0
"""As published; it says how little the first places of one list count against being in several lists."""


@dataclass(frozen=True, slots=True)
class Fused:
    """An item of a fused ranking.

    Attributes:
        item: Its number.
        score: Sum over the lists it is in of weight / (constant + rank).
        ranks: Its rank in each list, from 1; None where it is not in the list.
    """

    item: int
    score: float
    ranks: tuple[int | None, ...]


def reciprocal_rank_fusion(
    lists: Sequence[Sequence[int]], *, weights: Sequence[float] | None = None, constant: float = CONSTANT
) -> list[Fused]:
    """Return every item of any list, best first; equal scores by item number.

    Args:
        lists: Item numbers, best first; an item that is in a list twice counts at its first place.
        weights: One for each list; ones where None.
        constant: Added to every rank.

    Source: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.
    """
    weights = [1.0] * len(lists) if weights is None else weights
    places = [_ranks(items) for items in lists]
    fused = [_fused(item, places, weights, constant=constant) for item in set().union(*places)]
    return sorted(fused, key=lambda one: (-one.score, one.item))


def _ranks(items: Sequence[int]) -> dict[int, int]:
    return {item: rank for rank, item in enumerate(dict.fromkeys(items), 1)}


def _fused(item: int, places: Sequence[Mapping[int, int]], weights: Sequence[float], *, constant: float) -> Fused:
    ranks = tuple(place.get(item) for place in places)
    terms = (weight / (constant + rank) for weight, rank in zip(weights, ranks, strict=True) if rank is not None)
    return Fused(item, sum(terms), ranks)
