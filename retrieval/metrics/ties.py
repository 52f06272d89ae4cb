"""Expectations over a random order of targets of equal score, in closed form where there is one.

All arrays have one shape, an entry for each case: `better` targets score higher, `tied` have the same score, and
`right` of those are relevant. The positions of the relevant ones among the tied are drawn without replacement, so these
are hypergeometric probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from retrieval.metrics import Floats, Ids


def precision_sum(better: Ids, tied: Ids, right: Ids, *, before: Ids, answers: Ids) -> Floats:
    """Return the expected sum of precision at i over the relevant targets at ranks i <= answers of one group of ties.

    Position j of the group (rank i = better + j) is relevant with probability right / tied; given that, the expected
    number of relevant targets up to it is before + 1 + (j - 1) (right - 1) / (tied - 1). Summed over j.
    """
    harmonic = _harmonic(int(answers.max(initial=0)))
    first, last = np.minimum(better, answers), np.minimum(better + tied, answers)
    growth = (right - 1) / np.maximum(tied - 1, 1)
    constant = before + 1 - (better + 1) * growth
    total: Floats = right / tied * (constant * (harmonic[last] - harmonic[first]) + growth * (last - first))
    return total


def miss_probability(tied: Ids, right: Ids, taken: Ids) -> Floats:
    """C(tied - right, taken) / C(tied, taken): the probability that `taken` of `tied` contain no relevant one."""
    fewer, more = np.minimum(right, taken), np.maximum(right, taken)  # the ratio is symmetric in the two
    result = np.ones(len(tied))
    for step in range(int(fewer.max(initial=0))):
        open_ = np.flatnonzero(step < fewer)
        result[open_] *= np.maximum(tied[open_] - more[open_] - step, 0) / (tied[open_] - step)
    return result


def reciprocal_rank(better: Ids, tied: Ids, right: Ids) -> Floats:
    """E[1 / (better + J)], J the first position of `right` among `tied` in random order."""
    harmonic = _harmonic(int(tied.max(initial=0)))
    result = right / (tied - right + 1) * (harmonic[tied] - harmonic[right - 1])  # the closed form where better is 0
    late = np.flatnonzero(better)
    result[late] = _late_reciprocal_rank(better[late], tied[late], right[late])
    return result


def _late_reciprocal_rank(better: Ids, tied: Ids, right: Ids) -> Floats:
    """Sum over J, for any `better`: the closed form loses its digits where better is large."""
    result = np.zeros(len(better))
    probability = right / tied  # P(J = 1)
    alive = np.arange(len(better))
    position = 1
    while len(alive):
        result[alive] += probability[alive] / (better[alive] + position)
        alive = alive[position <= tied[alive] - right[alive]]
        # P(J = j + 1) / P(J = j) = (tied - right - j + 1) / (tied - j)
        probability[alive] *= (tied[alive] - right[alive] - position + 1) / (tied[alive] - position)
        position += 1
    return result


def _harmonic(count: int) -> Floats:
    """Return the harmonic numbers H(0) to H(count)."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, count + 1))])
