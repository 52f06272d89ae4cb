"""How sure a measured figure is: bootstrap intervals over items, as pure functions of per-query values.

Items are resampled with replacement, each with all of its queries: captions of one picture rise and fall together, so
resampling captions one by one would make intervals too narrow. The targets stay as they are.
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
DRAW_BLOCK = 1 << 19  # draws held at once: 4 MB of counts


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with the interval that holds the true one in 95 of 100 samples of items; NaN for none."""

    value: float
    low: float
    high: float


def paired_difference(before: Floats, after: Floats, *, items: Ids, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of `after - before` over the same queries, with its interval; an improvement when `low` is above 0.

    Both are compared within each query, so what makes a query hard for both cancels out: the interval is far narrower
    than those of the two means.

    Args:
        before: (q,) the value of each query, such as `Ranks.recall(10)`.
        after: (q,) the same queries, in the same order, with the other encoder.
        items: (q,) the number of the item that each query belongs to.
        resamples: how many samples of the items to draw.
        seed: of the draws.

    Raises:
        EvaluationError: when the three do not have one length, or there are no queries.
    """
    if not len(before) == len(after) == len(items) or not len(items):
        lengths = f"{len(before)}, {len(after)} and {len(items)}"
        raise EvaluationError(f"A paired difference needs values and items of the same queries, got {lengths} of them.")
    values = after - before
    count = int(items.max()) + 1
    sample = bootstrap_means(values, items, count=count, resamples=resamples, seed=seed)
    return estimate(float(values.mean()), sample, items=items)


def bootstrap_means(values: Floats, items: Ids, *, count: int, resamples: int, seed: int) -> Floats:
    """Means of the values on samples of the items: (resamples,), or (resamples, m) for values (q, m).

    Calls with the same `count`, `resamples` and `seed` draw the same items, so sums over several calls are samples too.
    A sample that holds no query at all gives NaN.

    Args:
        values: (q,) or (q, m), one or several values of each query.
        items: (q,) the number of the item that each query belongs to.
        count: how many items there are; those without a query are drawn all the same.
        resamples: how many samples to draw.
        seed: of the draws.
    """
    columns = [*values.reshape(len(values), -1).T, np.ones(len(values))]
    sums = np.stack([np.bincount(items, column, minlength=count) for column in columns], axis=1)  # (count, m + 1)
    totals = np.concatenate([drawn @ sums for drawn in _draws(count, resamples, seed)])
    with np.errstate(invalid="ignore"):
        means: Floats = totals[:, :-1] / totals[:, -1:]
    return means.reshape(resamples, *values.shape[1:])


def bootstrap_medians(values: Floats, items: Ids, *, count: int, resamples: int, seed: int) -> Floats:
    """Medians of the values (q,) on the samples that `bootstrap_means` takes with the same arguments: (resamples,)."""
    order = np.argsort(values, kind="stable")
    ordered, item_of = values[order], items[order]
    medians = [_weighted_median(ordered, drawn[:, item_of]) for drawn in _draws(count, resamples, seed)]
    return np.concatenate(medians)


def estimate(value: float, sample: Floats, *, items: Ids) -> Estimate:
    """The value with the percentile interval of its resampled values; NaN where there are none.

    Nor is there one where all queries belong to one item (q,): each sample is that item, whatever others would do.
    """
    known = sample[~np.isnan(sample)]
    if not len(known) or (items == items[0]).all():
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks (b, count) of how often each item was drawn, `resamples` rows in all."""
    random = np.random.default_rng(seed)
    step = max(1, DRAW_BLOCK // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _weighted_median(ordered: Floats, weights: Floats) -> Floats:
    """Median of the ascending values (q,) when each is there `weights` (b, q) times: (b,)."""
    upto = np.cumsum(weights, axis=1)
    half = upto[:, -1:] / 2
    last = len(ordered) - 1
    lower, upper = (np.minimum(np.count_nonzero(under, axis=1), last) for under in (upto < half, upto <= half))
    middle = (ordered[lower] + ordered[upper]) / 2
    return np.where(half[:, 0] > 0, middle, np.nan)
