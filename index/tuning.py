"""Recall of an index against exact search, and the least effort that reaches a target recall."""

from dataclasses import dataclass

import numpy as np

from index.errors import SpecError
from index.vector_index import VectorIndex
from index.vectors import Rows, Scores

BISECTIONS = 7  # of the range of efforts: the result is within 1/128


@dataclass(frozen=True, slots=True)
class TunedEffort:
    """The result of `tune_effort`.

    Attributes:
        effort: the least that reached the target, within 1/128; 1 where none did.
        recall: its recall on the queries.
        target: the target recall.
    """

    effort: float
    recall: float
    target: float

    @property
    def reached(self) -> bool:
        """Whether the recall is at least the target."""
        return self.recall >= self.target

    def describe(self) -> str:
        """Return the result in words, with what to do where it falls short."""
        if self.reached:
            return f"Effort {self.effort:.2f} reaches recall {self.recall:.3f} (target: {self.target:.3f})."
        return (
            f"Recall {self.target:.3f} cannot be reached: full effort gives {self.recall:.3f}. "
            "Build the index with more links or finer codes, or as kind exact."
        )


def recall_at_k(index: VectorIndex, queries: Rows, k: int, *, effort: float | None = None) -> float:
    """Return the mean fraction of the true k nearest live rows that a search finds, in [0, 1].

    A result that scores as well as the true k-th counts as right, so equal rows may stand for each other.

    Args:
        index: the index to measure.
        queries: unit rows, (q, d), of the kind that users send and not seen before: texts for an image index.
        k: number of results.
        effort: the index's own where None.

    Raises:
        SpecError: no queries, or an empty index.
    """
    return _compute_recall(index, queries, _find_true_kth(index, queries, k), effort=effort, k=k)


def tune_effort(index: VectorIndex, queries: Rows, k: int, *, recall: float) -> TunedEffort:
    """Return the least effort whose recall on these queries is at least `recall`, by bisection.

    Set it on the index (`index.effort = tuned.effort`) where it was reached; arguments and errors as `recall_at_k`.
    """
    if not 0 <= recall <= 1:
        raise SpecError(f"recall is {recall}. It must be from 0 to 1.")
    true_kth = _find_true_kth(index, queries, k)
    best = TunedEffort(1.0, _compute_recall(index, queries, true_kth, effort=1.0, k=k), recall)
    low = 0.0
    for _ in range(BISECTIONS if best.reached else 0):
        middle = (low + best.effort) / 2
        tried = TunedEffort(middle, _compute_recall(index, queries, true_kth, effort=middle, k=k), recall)
        low, best = (low, tried) if tried.reached else (middle, best)
    return best


def _find_true_kth(index: VectorIndex, queries: Rows, k: int) -> Scores:
    """Return the score of the last of the true k nearest, (q, 1)."""
    scores = index.search_exactly(queries, k).scores
    if not scores.size:
        raise SpecError(f"Recall needs queries and rows. These are {len(queries)} queries over {len(index)} rows.")
    return scores[:, -1:]


def _compute_recall(index: VectorIndex, queries: Rows, true_kth: Scores, *, effort: float | None, k: int) -> float:
    return float(np.mean(index.search(queries, k, effort=effort).scores >= true_kth))
