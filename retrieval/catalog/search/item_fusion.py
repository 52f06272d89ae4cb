"""Items ranked as wholes: the cosines of an item's pictures and captions fused into one score."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids, Rows, find_distinct
from retrieval.catalog.ranking import Ranking
from retrieval.catalog.search.request import Fusion
from retrieval.catalog.side import Side, Sides

DEFAULT_CAPTION_WEIGHT: Final = 0.5  # until one is learned


def fuse_sides(
    sides: Sides,
    query: Rows,
    *,
    candidates: Sequence[Ranking],
    fusion: Fusion,
    caption_weight: float,
) -> Ranking:
    """Return the items that are candidates on either side, best first; equal ones by number.

    An item's score is (1 - caption_weight) x that of its pictures + caption_weight x that of its captions, or that of
    its pictures where it has no captions. A side's score is the best cosine, or the mean of all. The position is that
    of the best picture.
    """
    items = find_distinct(np.concatenate([ranking.item for ranking in candidates]))
    pictures, positions = _score_side(sides["images"], query, items, fusion=fusion)
    captions, _ = _score_side(sides["captions"], query, items, fusion=fusion)
    score = np.where(np.isnan(captions), pictures, (1 - caption_weight) * pictures + caption_weight * captions)
    order = np.argsort(-score, kind="stable")
    return Ranking(items[order], positions[order], score[order])


def _score_side(side: Side, query: Rows, items: Ids, *, fusion: Fusion) -> tuple[NDArray[np.float64], Ids]:
    """Return the score of each of the sorted items on a side, NaN without an entry, and its best entry's position."""
    owners, positions, rows = side.vectors_of_items(items)
    cosines = rows.astype(np.float64) @ query[0].astype(np.float64)
    order = np.lexsort((positions, -cosines, owners))
    owners, positions, cosines = owners[order], positions[order], cosines[order]
    present, first, counts = np.unique(owners, return_index=True, return_counts=True)
    places = np.searchsorted(items, present)
    scores, best = np.full(len(items), np.nan), np.zeros(len(items), np.int64)
    sums = np.add.reduceat(cosines, first) if len(first) else cosines
    scores[places] = cosines[first] if fusion == "best" else sums / counts
    best[places] = positions[first]
    return scores, best
