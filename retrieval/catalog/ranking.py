"""Ranked entries of a catalog as columns of numbers, and the scope of a search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids, Mask


@dataclass(frozen=True, slots=True)
class Ranking:
    """Images, captions or items, best first."""

    item: Ids  # number of the item, (n,)
    position: Ids  # of the image or caption in its item, (n,)
    score: NDArray[np.float64]  # what they are ranked by, (n,) float64

    @classmethod
    def empty(cls) -> "Ranking":
        """Return a ranking without entries."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))

    def __len__(self) -> int:
        return len(self.item)

    def take(self, places: "Ids | Mask | slice") -> "Ranking":
        """Return the entries at these places, in their order."""
        return Ranking(self.item[places], self.position[places], self.score[places])


@dataclass(frozen=True, slots=True)
class SearchScope:
    """Which items a search may return, and how hard an approximate index looks for them."""

    allowed: Mask | None = None  # by item number, whether the item may be returned; all may where None
    exclude: int | None = None  # number of an item that is not returned
    effort: float | None = None  # of the index, from 0 to 1; the index's default where None
