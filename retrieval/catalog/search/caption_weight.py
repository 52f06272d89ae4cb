"""How much captions count beside pictures where items are ranked as wholes: learned from queries with right answers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from retrieval.catalog.search.request import Request, make_request
from retrieval.errors import QueryError
from retrieval.types import Hits

WEIGHTS: Final = tuple(step / 10 for step in range(11))
DEPTH: Final = 100  # a right item further down counts as not found


def learn_caption_weight(
    right: Mapping[str, Collection[str]], search_many: Callable[[Sequence[Request]], list[Hits]]
) -> float:
    """Return which of 0, 0.1 ... 1 gives the greatest mean reciprocal rank of first right items; of several the least.

    Args:
        right: Ids of the right items of each text.
        search_many: Of the catalog.

    Raises:
        QueryError: there are no queries, or one has no right items.
    """
    if not right or not all(right.values()):
        raise QueryError("A weight is learned from texts that have right items; give each its ids.")
    return max(WEIGHTS, key=lambda weight: (_mean_reciprocal_rank(right, search_many, weight), -weight))


def _mean_reciprocal_rank(
    right: Mapping[str, Collection[str]], search_many: Callable[[Sequence[Request]], list[Hits]], weight: float
) -> float:
    asked = [make_request(text=text, target="items", caption_weight=weight, k=DEPTH) for text in right]
    pages = zip(search_many(asked), right.values(), strict=True)
    return sum(_reciprocal_rank(hits, ids) for hits, ids in pages) / len(right)


def _reciprocal_rank(hits: Hits, ids: Collection[str]) -> float:
    return next((1 / hit.rank for hit in hits if hit.id in ids), 0.0)
