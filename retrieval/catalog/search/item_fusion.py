"""Items as wholes: the cosines of an item's pictures and captions made one score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids, Rows
from retrieval.catalog.ranking import Ranking
from retrieval.catalog.search.request import Fusion
from retrieval.catalog.side import Side
from retrieval.types import SideName

CAPTION_WEIGHT: Final = 0.5  # until one is learned


@dataclass(frozen=True, slots=True)
class Fusing:
    """How an item's pictures and captions make one score: of several the best or the mean, and the captions' weight."""

    fusion: Fusion
    weight: float


def fused(sides: Mapping[SideName, Side], query: Rows, *, among: Sequence[Ranking], fusing: Fusing) -> Ranking:
    """Return the items that were found on either side, best first; equal ones by number.

    An item's score is (1 - weight) x that of its pictures + weight x that of its captions, or that of its pictures
    where it has no captions. A side's score is the best cosine, or the mean of all. The position is that of the best
    picture.
    """
    candidates = np.unique(np.concatenate([found.item for found in among]))
    pictures, positions = _scores(sides["images"], query, candidates, fusion=fusing.fusion)
    captions, _ = _scores(sides["captions"], query, candidates, fusion=fusing.fusion)
    weight = fusing.weight
    score = np.where(np.isnan(captions), pictures, (1 - weight) * pictures + weight * captions)
    best = np.argsort(-score, kind="stable")
    return Ranking(candidates[best], positions[best], score[best])


def _scores(side: Side, query: Rows, items: Ids, *, fusion: Fusion) -> tuple[NDArray[np.float64], Ids]:
    """The score of each of the items, sorted, on one side, NaN for none, and the position of its best entry."""
    owners, positions, rows = side.vectors_of_items(items)
    cosines = rows.astype(np.float64) @ query[0].astype(np.float64)
    order = np.lexsort((positions, -cosines, owners))
    owners, positions, cosines = owners[order], positions[order], cosines[order]
    there, first, counts = np.unique(owners, return_index=True, return_counts=True)
    places = np.searchsorted(items, there)
    scores, best = np.full(len(items), np.nan), np.zeros(len(items), np.int64)
    sums = np.add.reduceat(cosines, first) if len(first) else cosines
    scores[places] = cosines[first] if fusion == "best" else sums / counts
    best[places] = positions[first]
    return scores, best
