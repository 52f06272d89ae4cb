"""Reranking: boosts, sorting by attributes, and one entry per group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids, Mask
from retrieval.catalog.ranking import Ranking
from retrieval.catalog.search.request import Boost
from retrieval.filters.columns import MISSING, Column, Columns

MOST, LEAST = 2.0, 0.5  # factors that all boosts together stay within


def apply_boosts(ranked: Ranking, boosts: Sequence[Boost], columns: Columns) -> Ranking:
    """Return the entries with scores moved by the signals of their items, best first; equal ones keep their order."""
    total = 1 + sum((_signal(boost, ranked.item, columns) for boost in boosts), np.zeros(len(ranked)))
    factor = np.clip(total, LEAST, MOST)
    score = np.where(ranked.score < 0, ranked.score / factor, ranked.score * factor)
    moved = Ranking(ranked.item, ranked.position, score)
    return moved.take(np.argsort(-score, kind="stable"))


def _signal(boost: Boost, items: Ids, columns: Columns) -> NDArray[np.float64]:
    """What a boost adds to the factor of each item."""
    column = columns.column(boost.attribute)
    low, high = boost.low, boost.high
    if low is None or high is None:
        every = column.numeric_values(np.flatnonzero(columns.live))
        every = every[np.isfinite(every)]
        low = (float(every.min()) if len(every) else 0.0) if low is None else low
        high = (float(every.max()) if len(every) else 1.0) if high is None else high
    if low >= high:  # all values are equal: they tell no item from another
        return np.zeros(len(items))
    values = np.nan_to_num(column.numeric_values(items), nan=low, posinf=high, neginf=low)
    return boost.weight * np.clip((values - low) / (high - low), 0, 1)


def sort_by_attributes(ranked: Ranking, sort: Sequence[tuple[str, bool]], columns: Columns) -> Ranking:
    """Return the entries by their items' attributes, equal ones in the order of their scores."""
    keys: list[NDArray[np.float64] | NDArray[np.int8]] = []
    for name, descending in reversed(sort):
        kinds, values = columns.column(name).sort_keys(ranked.item, descending=descending)
        keys += [values, kinds]
    return ranked.take(np.lexsort(keys)) if len(ranked) else ranked


def keep_best_of_groups(ranked: Ranking, column: Column) -> Ranking:
    """Return the first entry of each group: of the items that share a value, the least of several; others are alone."""
    kinds, values = column.sort_keys(ranked.item, descending=False)
    keys = np.stack([kinds.astype(np.float64), values, np.where(kinds == MISSING, ranked.item, 0)], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return ranked.take(np.sort(first))


def group_sizes(items: Ids, column: Column, mask: Mask) -> list[int]:
    """Return how many items of the mask are in the group of each of these items."""
    kinds, values = column.sort_keys(np.flatnonzero(mask), descending=False)
    own = zip(*column.sort_keys(items, descending=False), strict=True)
    return [1 if kind == MISSING else int(np.sum((kinds == kind) & (values == value))) for kind, value in own]
