"""Recall of an index against exact search, and the least effort that reaches a target recall."""

from dataclasses import dataclass

import numpy as np

from index.errors import SpecError
from index.vector_index import VectorIndex
from index.vectors import Rows, Scores

BISECTIONS = 7  # of the range of efforts: the result is within 1/128


@dataclass(frozen=True, slots=True)
class TunedEffort:
    """The result of `tune_effort`: the least effort that reached the target, within 1/128, and its recall.

    Where none did (`reached` is False) the effort is 1: build the index with more links or finer codes, or as exact.
    """

    effort: float
    recall: float
    reached: bool


def recall_at_k(index: VectorIndex, queries: Rows, k: int, *, effort: float | None = None) -> float:
    """Return the mean fraction of the true k nearest live rows that a search finds, in [0, 1].

    A result that scores as well as the true k-th counts as right, so equal rows may stand for each other.

    Args:
        index: The index to measure.
        queries: Unit rows, (q, d), of the kind that users send and not seen before: texts for an image index.
        k: Number of results.
        effort: The index's own where None.

    A SpecError if there are no queries, or the index is empty.
    """
    true_kth = _find_true_kth(index, queries, k)
    return float(np.mean(index.search(queries, k, effort=effort).scores >= true_kth))


def tune_effort(index: VectorIndex, queries: Rows, k: int, *, recall: float) -> TunedEffort:
    """Return the least effort whose recall on these queries is at least `recall`, by bisection.

    Set it on the index (`index.effort = tuned.effort`) where it was reached; arguments and errors as `recall_at_k`.
    """
    if not 0 <= recall <= 1:
        raise SpecError(f"recall is {recall}. It must be from 0 to 1.")
    true_kth = _find_true_kth(index, queries, k)

    def measure(effort: float) -> TunedEffort:
        measured = float(np.mean(index.search(queries, k, effort=effort).scores >= true_kth))
        return TunedEffort(effort, measured, reached=measured >= recall)

    low, best = 0.0, measure(1.0)
    for _ in range(BISECTIONS if best.reached else 0):
        middle = measure((low + best.effort) / 2)
        low, best = (low, middle) if middle.reached else (middle.effort, best)
    return best


def _find_true_kth(index: VectorIndex, queries: Rows, k: int) -> Scores:
    """Return the score of the last of the true k nearest, (q, 1)."""
    scores = index.search_exactly(queries, k).scores
    if not scores.size:
        raise SpecError(f"Recall needs queries and rows. These are {len(queries)} queries over {len(index)} rows.")
    return scores[:, -1:]
