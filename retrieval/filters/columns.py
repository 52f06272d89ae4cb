"""One attribute of all items as arrays: each kind of value by item number, and further values in a list beside it."""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import Compare, Exists, OneOf, Scalar
from retrieval.filters.attributes import BOOLEAN, NUMBER, TEXT

Mask: TypeAlias = NDArray[np.bool_]
Items: TypeAlias = NDArray[np.int64]
Leaf: TypeAlias = OneOf | Compare | Exists
Test: TypeAlias = Callable[[NDArray[Any]], Mask]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
}


class Column:
    """All values under one key, by kind; texts as codes, in the order of the sorted vocabulary."""

    def __init__(self) -> None:
        self.kinds = {BOOLEAN: Values(np.int8, absent=-1), NUMBER: Values(np.float64, absent=np.nan)}
        self.kinds[TEXT] = Values(np.int32, absent=-1)
        self.vocabulary: list[str] = []

    def where(self, condition: Leaf, size: int) -> Mask:
        """True at the items for which the condition holds."""
        mask = np.zeros(size, np.bool_)
        for kind, test in self._tests(condition):
            self.kinds[kind].mark(test, mask)
        return mask

    def replace(self, kind: int, changed: Mask, *, items: Items, values: NDArray[Any]) -> None:
        """Take these values (for texts: codes) for all that the changed items had; `changed` is by item number."""
        self.kinds[kind].replace(changed, items, values)

    def learn(self, texts: Sequence[str]) -> list[int]:
        """Codes of the texts; unknown ones enter the vocabulary, which moves the codes behind them."""
        unknown = sorted(set(texts).difference(self._known(set(texts))))
        if unknown:
            places = [bisect_left(self.vocabulary, text) for text in unknown]
            moved = np.arange(len(self.vocabulary)) + np.searchsorted(
                places, np.arange(len(self.vocabulary)), side="right"
            )
            self.kinds[TEXT].recode(moved)
            self.vocabulary = sorted([*self.vocabulary, *unknown])  # two sorted runs: merged in linear time
        return [bisect_left(self.vocabulary, text) for text in texts]

    def counts(self, mask: Mask) -> list[tuple[int, Scalar, int, int]]:
        """Return kind, value, number of items in the mask (by item number) that have it, and one of these items."""
        return [
            (kind, self._scalar(kind, value), count, item)
            for kind, values in self.kinds.items()
            for value, count, item in values.counts(mask)
        ]

    def within(self, low: float | str | None, high: float | str | None, size: int) -> Mask:
        """True at the items that have a value v with low <= v < high; None is no bound, and both are of one kind."""
        mask = np.zeros(size, np.bool_)
        if isinstance(low, str) or isinstance(high, str):
            first, end = (None if one is None else bisect_left(self.vocabulary, str(one)) for one in (low, high))
            self.kinds[TEXT].mark(_between(first or 0, end), mask)
        else:
            self.kinds[NUMBER].mark(_between(low, high), mask)
        return mask

    def present(self, size: int) -> Mask:
        """True at the items that have any value."""
        return self.where(Exists(""), size)

    def order(self, items: Items, *, descending: bool) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Return two keys to sort these items by, the first of more weight.

        Numbers come before texts, these before booleans, and items without a value last, either way. Of several values
        the least counts, or the greatest where `descending`.
        """
        ranks = np.full(len(items), MISSING, np.int8)
        keys = np.zeros(len(items))
        for rank, kind in reversed(list(enumerate(_IN_ORDER))):
            found = self.kinds[kind].extreme(items, greatest=descending).astype(np.float64)
            there = found != self.kinds[kind].absent if kind != NUMBER else ~np.isnan(found)
            ranks[there], keys[there] = rank, found[there]
        return ranks, -keys if descending else keys

    def numbers(self, items: Items) -> NDArray[np.float64]:
        """Return the greatest number of each item; booleans are 0 and 1, NaN stands for neither."""
        numbers = self.kinds[NUMBER].extreme(items, greatest=True)
        flags = self.kinds[BOOLEAN].extreme(items, greatest=True).astype(np.float64)
        return np.where(np.isnan(numbers), np.where(flags < 0, np.nan, flags), numbers)

    def _scalar(self, kind: int, value: float) -> Scalar:
        if kind == TEXT:
            return self.vocabulary[int(value)]
        return bool(value) if kind == BOOLEAN else float(value)

    def _known(self, texts: Collection[str]) -> dict[str, int]:
        """The texts that the vocabulary holds, with their codes."""
        if len(texts) * 16 > len(self.vocabulary):  # then one pass is quicker than a search for each
            return {text: code for code, text in enumerate(self.vocabulary) if text in texts}
        codes = {text: bisect_left(self.vocabulary, text) for text in texts}
        return {text: code for text, code in codes.items() if self.vocabulary[code : code + 1] == [text]}

    def _tests(self, condition: Leaf) -> list[tuple[int, Test]]:
        """What values of which kind must pass."""
        if isinstance(condition, Exists):
            return [(BOOLEAN, _is_coded), (NUMBER, _is_number), (TEXT, _is_coded)]
        if isinstance(condition, Compare):
            return [self._comparison(condition)]
        codes = list(self._known(condition.texts).values())
        tests = [
            (BOOLEAN, _is_code_in([int(flag) for flag in condition.booleans], 2)) if condition.booleans else None,
            (NUMBER, _is_in(condition.numbers)) if condition.numbers else None,
            (TEXT, _is_code_in(codes, len(self.vocabulary))) if codes else None,
        ]
        return [test for test in tests if test]

    def _comparison(self, condition: Compare) -> tuple[int, Test]:
        compare = _COMPARE[condition.operator]
        if not isinstance(condition.value, str):
            number = condition.value
            return NUMBER, lambda numbers: np.asarray(compare(numbers, number))
        # $lte and $gt part the vocabulary behind the text, $lt and $gte before it.
        part = bisect_right if condition.operator in ("$lte", "$gt") else bisect_left
        cut = part(self.vocabulary, condition.value)
        if condition.operator in ("$gt", "$gte"):
            return TEXT, partial(np.less_equal, cut)
        return TEXT, lambda codes: (codes >= 0) & (codes < cut)


_is_coded: Test = partial(np.less_equal, 0)


_IN_ORDER = (NUMBER, TEXT, BOOLEAN)
MISSING = len(_IN_ORDER)
"""The first key of `Column.order` for an item without a value."""


def _between(low: float | None, high: float | None) -> Test:
    least, end = -np.inf if low is None else low, np.inf if high is None else high
    return lambda values: np.asarray((values >= least) & ((values < end) | (high is None)))


def _is_number(numbers: NDArray[np.float64]) -> Mask:
    return ~np.isnan(numbers)


def _is_in(numbers: Collection[float]) -> Test:
    return lambda array: np.isin(array, list(numbers))


def _is_code_in(codes: list[int], count: int) -> Test:
    """Whether codes, of which there are `count`, are among the given ones: by a table, 10 times as fast as np.isin."""
    wanted = np.zeros(count + 1, np.bool_)  # absent, -1, is the last one, and never wanted
    wanted[codes] = True
    return lambda array: wanted[array]


class Values:
    """The values of one kind under one key: an array by item number, and a list for items that have several."""

    def __init__(self, dtype: type[np.generic], *, absent: float) -> None:
        self.absent = absent
        self.first: NDArray[Any] = np.empty(0, dtype)
        self.more: NDArray[Any] = np.empty(0, dtype)
        self.more_items: Items = np.empty(0, np.int64)

    def mark(self, test: Test, mask: Mask) -> None:
        """Set the mask at items with a value that passes the test."""
        if len(self.first):
            mask |= test(self.first[: len(mask)])
            mask[self.more_items[test(self.more)]] = True

    def counts(self, mask: Mask) -> list[tuple[float, int, int]]:
        """Return each value that an item in the mask has, how many of these items have it, and one of them."""
        if not len(self.first):
            return []
        items = np.flatnonzero(mask)
        more = mask[self.more_items]
        values = np.concatenate([self.first[items], self.more[more]])
        owners = np.concatenate([items, self.more_items[more]])
        there = ~np.isnan(values) if np.issubdtype(values.dtype, np.floating) else values != self.absent
        found, places, counts = np.unique(values[there], return_index=True, return_counts=True)
        return list(zip(found.tolist(), counts.tolist(), owners[there][places].tolist(), strict=True))

    def extreme(self, items: Items, *, greatest: bool) -> NDArray[Any]:
        """Return the least or the greatest value of each of these items, `absent` for none."""
        if not len(self.first):
            return np.full(len(items), self.absent, self.first.dtype)
        if not len(self.more):
            return self.first[items]
        values = self.first.copy()
        (np.maximum if greatest else np.minimum).at(values, self.more_items, self.more)
        return values[items]

    def replace(self, changed: Mask, items: Items, values: NDArray[Any]) -> None:
        """Take these values for all that the changed items had."""
        if not len(self.first) and not len(items):
            return
        self._grow(len(changed))
        self.first[: len(changed)][changed] = self.absent
        kept = ~changed[self.more_items]
        values = values.astype(self.first.dtype)
        unique, places = np.unique(items, return_index=True)
        self.first[unique] = values[places]
        rest = np.ones(len(items), np.bool_)
        rest[places] = False
        self.more_items = np.concatenate([self.more_items[kept], items[rest]])
        self.more = np.concatenate([self.more[kept], values[rest]])

    def recode(self, moved: NDArray[np.int64]) -> None:
        """Put new codes in the place of old ones."""
        codes = np.append(moved, -1).astype(self.first.dtype)  # absent is -1: the last
        self.first, self.more = codes[self.first], codes[self.more]

    def _grow(self, size: int) -> None:
        if size > len(self.first):  # an eighth more, so that a growing catalog does not copy at every new item
            grown = np.full(size + size // 8, self.absent, self.first.dtype)
            grown[: len(self.first)] = self.first
            self.first = grown
