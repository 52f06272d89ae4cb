"""The weight of captions beside pictures where items are ranked as wholes, learned from queries with right answers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import QueryError
from retrieval.types import Hits

WEIGHTS: Final = tuple(step / 10 for step in range(11))
DEPTH: Final = 100  # a right item further down counts as not found


def learn_caption_weight(
    right: Mapping[str, Collection[str]], search_many: Callable[[Sequence[SearchRequest]], list[Hits]]
) -> float:
    """Return which of 0, 0.1 ... 1 gives the greatest mean reciprocal rank of the first right item; the least on a tie.

    Args:
        right: Ids of the right items of each text.
        search_many: `Catalog.search_many`.

    Raises:
        QueryError: there are no queries, or one has no right items.
    """
    if not right or not all(right.values()):
        raise QueryError("A caption weight is learned from texts that have right items: give each text its ids.")

    def mean_reciprocal_rank(weight: float) -> float:
        requests = [
            SearchRequest(text=text, mode="vectors", target="items", caption_weight=weight, k=DEPTH) for text in right
        ]
        pages = zip(search_many(requests), right.values(), strict=True)
        ranks = (next((hit.rank for hit in hits if hit.id in ids), 0) for hits, ids in pages)
        return sum(1 / rank for rank in ranks if rank) / len(right)

    return max(WEIGHTS, key=lambda weight: (mean_reciprocal_rank(weight), -weight))
