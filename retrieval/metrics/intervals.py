"""Bootstrap intervals over items, as pure functions of per-query values.

Items are resampled with replacement, each with all of its queries: the captions of one picture are correlated, so
resampling single captions would make intervals too narrow. The targets stay fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrieval.metrics import Floats, Ids

CONFIDENCE = 0.95
DRAW_BLOCK = 1 << 19  # draws in memory at once: 4 MB of counts


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval; NaN for no interval."""

    value: float
    low: float
    high: float


def paired_difference(before: Floats, after: Floats, *, items: Ids, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return the mean of `after - before` over the same queries; an improvement where `low` is above 0.

    The comparison is paired, so what makes a query hard for both cancels out: the interval is far narrower than those
    of the two means.

    Args:
        before: (q,) the value of each query, such as `Ranks.recall(10)`.
        after: (q,) the values of the same queries with the other encoder.
        items: (q,) the item that each query belongs to.
        resamples: The number of bootstrap samples.
        seed: Seed of the samples.

    Raises:
        EvaluationError: The three have different lengths, or there are no queries.
    """
    if not len(before) == len(after) == len(items) or not len(items):
        lengths = f"{len(before)}, {len(after)} and {len(items)}"
        raise EvaluationError(f"A paired difference needs values and items of the same queries, not {lengths} of them.")
    values = after - before
    count = int(items.max()) + 1
    sample = bootstrap_means(values, items, count=count, resamples=resamples, seed=seed)
    return estimate(float(values.mean()), sample, items=items)


def bootstrap_means(values: Floats, items: Ids, *, count: int, resamples: int, seed: int) -> Floats:
    """Return the means of the values on samples of the items: (resamples,), or (resamples, m) for values (q, m).

    Calls with the same `count`, `resamples` and `seed` draw the same items, so sums over several calls are samples too.
    A sample without a query gives NaN.

    Args:
        values: (q,) or (q, m), one or several values of each query.
        items: As for `paired_difference`.
        count: The number of items, those without a query included.
        resamples: As for `paired_difference`.
        seed: As for `paired_difference`.
    """
    columns = [*values.reshape(len(values), -1).T, np.ones(len(values))]
    sums = np.stack([np.bincount(items, column, minlength=count) for column in columns], axis=1)  # (count, m + 1)
    totals = np.concatenate([drawn @ sums for drawn in _draws(count, resamples, seed)])
    with np.errstate(invalid="ignore"):
        means: Floats = totals[:, :-1] / totals[:, -1:]
    return means.reshape(resamples, *values.shape[1:])


def bootstrap_medians(values: Floats, items: Ids, *, count: int, resamples: int, seed: int) -> Floats:
    """Return the medians of the values (q,) on the samples that `bootstrap_means` draws: (resamples,)."""
    order = np.argsort(values, kind="stable")
    ordered, item_of = values[order], items[order]
    medians = [_weighted_median(ordered, drawn[:, item_of]) for drawn in _draws(count, resamples, seed)]
    return np.concatenate(medians)


def estimate(value: float, sample: Floats, *, items: Ids) -> Estimate:
    """Return the value with the percentile interval of its bootstrap sample.

    There is none (NaN) where the sample is empty, or all queries belong to one item: every sample is that item.
    """
    known = sample[~np.isnan(sample)]
    if not len(known) or (items == items[0]).all():
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks (b, count) of how often each item was drawn, `resamples` rows in all."""
    random = np.random.default_rng(seed)
    step = max(1, DRAW_BLOCK // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _weighted_median(ordered: Floats, weights: Floats) -> Floats:
    """Return the medians (b,) of the ascending values (q,), each repeated `weights` (b, q) times."""
    upto = np.cumsum(weights, axis=1)
    half = upto[:, -1:] / 2
    last = len(ordered) - 1
    lower, upper = (np.minimum(np.count_nonzero(under, axis=1), last) for under in (upto < half, upto <= half))
    middle = (ordered[lower] + ordered[upper]) / 2
    return np.where(half[:, 0] > 0, middle, np.nan)
