"""How well an index answers: recall against the oracle, and the least effort that reaches an asked recall."""

from dataclasses import dataclass

import numpy as np

from index.errors import SpecError
from index.vector_index import VectorIndex
from index.vectors import Rows, Scores

STEPS = 7  # halvings of the range of efforts: the answer is within 1/128 of it


@dataclass(frozen=True, slots=True)
class Tuned:
    """The least effort that was found.

    Attributes:
        effort: the least that reached the asked recall, within 1/128; 1 where none did.
        recall: what it reached on the queries handed in.
        asked: the recall that was asked for.
    """

    effort: float
    recall: float
    asked: float

    @property
    def reached(self) -> bool:
        """Whether the recall is what was asked."""
        return self.recall >= self.asked

    def describe(self) -> str:
        """Return the outcome in words, with what to do where it falls short."""
        if self.reached:
            return f"effort {self.effort:.2f} reaches recall {self.recall:.3f} (asked: {self.asked:.3f})"
        short = f"recall {self.asked:.3f} cannot be reached: full effort gives {self.recall:.3f}"
        return f"{short}; build it with more links or finer codes, or as kind exact"


def recall_at_k(index: VectorIndex, queries: Rows, k: int, *, effort: float | None = None) -> float:
    """Return the mean share of the true k nearest live rows that a search finds, in [0, 1].

    A found row that scores as well as the true k-th is right, so equal rows may stand for each other.

    Args:
        index: what is measured.
        queries: unit rows, (q, d), of the kind that users send and not seen before: texts for an image index.
        k: how many results.
        effort: the index's own where None.

    Raises:
        SpecError: no queries, or an empty index.
    """
    return _recall(index, queries, _true_kth(index, queries, k), effort=effort, k=k)


def least_effort(index: VectorIndex, queries: Rows, k: int, *, recall: float) -> Tuned:
    """Return the least effort whose recall on these queries is at least `recall`, by halving the range of efforts.

    Set it on the index (`index.effort = tuned.effort`) where it was reached; arguments and errors as `recall_at_k`.
    """
    if not 0 <= recall <= 1:
        raise SpecError(f"recall is {recall}: it is a share from 0 to 1")
    true_kth = _true_kth(index, queries, k)
    best = Tuned(1.0, _recall(index, queries, true_kth, effort=1.0, k=k), recall)
    if not best.reached:
        return best
    low = 0.0
    for _ in range(STEPS):
        middle = (low + best.effort) / 2
        tried = Tuned(middle, _recall(index, queries, true_kth, effort=middle, k=k), recall)
        low, best = (low, tried) if tried.reached else (middle, best)
    return best


def _true_kth(index: VectorIndex, queries: Rows, k: int) -> Scores:
    """Return the score of the last of the true k nearest, (q, 1)."""
    scores = index.search_exactly(queries, k).scores
    if not scores.size:
        raise SpecError(f"no recall of {len(queries)} queries over {len(index)} rows: both must be there")
    return scores[:, -1:]


def _recall(index: VectorIndex, queries: Rows, true_kth: Scores, *, effort: float | None, k: int) -> float:
    return float(np.mean(index.search(queries, k, effort=effort).scores >= true_kth))
