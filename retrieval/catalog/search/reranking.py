"""Reranking: boosts, sorting by attributes, and one entry per group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.vectors import Ids, Mask
from retrieval.catalog.ranking import Ranking
from retrieval.catalog.search.request import Boost
from retrieval.filters.columns import MISSING, Column, Columns

MIN_FACTOR, MAX_FACTOR = 0.5, 2.0  # of all boosts together


def apply_boosts(ranking: Ranking, boosts: Sequence[Boost], columns: Columns) -> Ranking:
    """Return the entries with scores moved by the signals of their items, best first; equal ones keep their order."""
    total = 1 + sum((_weigh_values(boost, ranking.item, columns) for boost in boosts), np.zeros(len(ranking)))
    factor = np.clip(total, MIN_FACTOR, MAX_FACTOR)
    score = np.where(ranking.score < 0, ranking.score / factor, ranking.score * factor)
    moved = Ranking(ranking.item, ranking.position, score)
    return moved.take(np.argsort(-score, kind="stable"))


def _weigh_values(boost: Boost, items: Ids, columns: Columns) -> NDArray[np.float64]:
    """Return what a boost adds to the factor of each item."""
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


def sort_by_attributes(ranking: Ranking, sort: Sequence[tuple[str, bool]], columns: Columns) -> Ranking:
    """Return the entries by their items' attributes, equal ones in the order of their scores."""
    keys: list[NDArray[np.float64] | NDArray[np.int8]] = []
    for name, descending in reversed(sort):
        kinds, values = columns.column(name).sort_keys(ranking.item, descending=descending)
        keys += [values, kinds]
    return ranking.take(np.lexsort(keys)) if len(ranking) else ranking


def collapse_groups(ranking: Ranking, column: Column) -> Ranking:
    """Return the first entry of each group of items with the same least value; an item without a value is a group."""
    kinds, values = column.sort_keys(ranking.item, descending=False)
    keys = np.stack([kinds.astype(np.float64), values, np.where(kinds == MISSING, ranking.item, 0)], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return ranking.take(np.sort(first))


def count_group_items(items: Ids, column: Column, mask: Mask) -> list[int]:
    """Return how many items of the mask are in the group of each of these items."""
    kinds, values = column.sort_keys(np.flatnonzero(mask), descending=False)
    own = zip(*column.sort_keys(items, descending=False), strict=True)
    return [1 if kind == MISSING else int(np.sum((kinds == kind) & (values == value))) for kind, value in own]
