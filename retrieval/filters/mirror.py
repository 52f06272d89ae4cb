"""Attributes mirrored in memory: filters as masks over columns, in a fraction of the time that SQL takes."""

from __future__ import annotations

import json
import operator
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.filters import Compare, Every, Exists, Filter, Not, OneOf, Some
from retrieval.filters.attributes import BOOLEAN, NUMBER, TEXT, filter_sql

if TYPE_CHECKING:
    import sqlite3

MAX_COLUMNS = 64
"""Columns kept at once, the last used ones. One takes 8 bytes an item for numbers, 4 for text."""

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


class Mirror:
    """The attributes of one catalog as columns, each read at its first use; later only changed items are read again.

    Safe to share between threads that each bring their own connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: dict[str, _Column] = {}
        self._live: Mask = np.zeros(0, np.bool_)
        self._revision = 0

    def mask(self, condition: Filter, connection: sqlite3.Connection) -> Mask:
        """True at the numbers of live items for which the condition holds, as the connection sees them now.

        The length is the greatest item number ever stored, plus one. The connection has no uncommitted changes.
        """
        with _snapshot(connection), self._lock:
            revision, size = _state(connection)
            if revision < self._revision:  # another thread's snapshot is newer than this one
                return _mask_by_sql(condition, connection, size)
            self._refresh(connection, revision, size)
            return self._evaluate(condition, connection) & self._live

    def _refresh(self, connection: sqlite3.Connection, revision: int, size: int) -> None:
        if revision == self._revision:
            return
        changed = _integers(connection, "SELECT item FROM attribute_changes WHERE revision > ?", self._revision)
        columns, before = self._columns, self._revision
        self._columns, self._revision = {}, 0  # an error on the way leaves a mirror that reads everything again
        if before == 0 or len(changed) > max(1000, size // 8):
            self._live = _flags(_integers(connection, "SELECT item FROM live_items"), size)
        else:
            self._update_live(connection, changed, size)
            _update_columns(columns, connection, changed=_flags(changed, size))
            self._columns = columns
        self._revision = revision

    def _update_live(self, connection: sqlite3.Connection, changed: Items, size: int) -> None:
        live = np.zeros(size, np.bool_)
        live[: len(self._live)] = self._live
        live[changed] = False
        sql = "SELECT item FROM live_items WHERE item IN (SELECT json_each.value FROM json_each(?))"
        live[_integers(connection, sql, json.dumps(changed.tolist()))] = True
        self._live = live

    def _evaluate(self, condition: Filter, connection: sqlite3.Connection) -> Mask:
        if isinstance(condition, Not):
            return ~self._evaluate(condition.part, connection)
        if isinstance(condition, Every | Some):
            every = isinstance(condition, Every)
            mask = np.full(len(self._live), every)
            for part in condition.parts:
                (np.logical_and if every else np.logical_or)(mask, self._evaluate(part, connection), out=mask)
            return mask
        return self._column(condition.key, connection).where(condition, len(self._live))

    def _column(self, key: str, connection: sqlite3.Connection) -> _Column:
        column = self._columns.pop(key, None) or _read_column(connection, key, len(self._live))
        self._columns[key] = column  # last in the dict: used last
        while len(self._columns) > MAX_COLUMNS:
            del self._columns[next(iter(self._columns))]
        return column


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One state of the database for all reads inside: the caller's, where it has a transaction open."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    """The latest revision, and the greatest item number plus one."""
    sql = "SELECT (SELECT max(revision) FROM attribute_changes), (SELECT max(item) FROM attribute_changes)"
    revision, last = connection.execute(sql).fetchone()
    return revision or 0, 0 if last is None else last + 1


def _integers(connection: sqlite3.Connection, sql: str, *parameters: Any) -> Items:
    return np.fromiter((item for (item,) in connection.execute(sql, parameters)), np.int64)


def _flags(items: Items, size: int) -> Mask:
    flags = np.zeros(size, np.bool_)
    flags[items] = True
    return flags


def _mask_by_sql(condition: Filter, connection: sqlite3.Connection, size: int) -> Mask:
    sql, parameters = filter_sql(condition)
    return _flags(_integers(connection, sql, *parameters), size)


def _read_column(connection: sqlite3.Connection, key: str, size: int) -> _Column:
    column = _Column()
    nothing = np.zeros(size, np.bool_)
    for kind in (BOOLEAN, NUMBER):
        sql = "SELECT item, value FROM attributes WHERE key = ? AND kind = ?"
        rows = np.array(connection.execute(sql, (key, kind)).fetchall(), np.float64).reshape(-1, 2)
        column.replace(kind, nothing, items=rows[:, 0].astype(np.int64), values=rows[:, 1])
    # Grouped, since most texts are those of many items: half the time of a row for each.
    sql = "SELECT value, group_concat(item), count(*) FROM attributes WHERE key = ? AND kind = ? GROUP BY value"
    groups = connection.execute(sql, (key, TEXT)).fetchall()
    column.vocabulary = [text for text, _, _ in groups]
    items = np.fromstring(",".join(listed for _, listed, _ in groups), np.int64, sep=",")
    codes = np.repeat(np.arange(len(groups)), [count for _, _, count in groups])
    column.replace(TEXT, nothing, items=items, values=codes)
    return column


def _update_columns(columns: dict[str, _Column], connection: sqlite3.Connection, *, changed: Mask) -> None:
    """Read the changed items again, into every column that is there."""
    # The index by item is named, since SQLite might read all rows of a key through the other one.
    sql = (
        "SELECT key, kind, item, value FROM attributes INDEXED BY attributes_by_item "
        "WHERE item IN (SELECT json_each.value FROM json_each(?))"
    )
    found: dict[tuple[str, int], list[tuple[int, Any]]] = {}
    for key, kind, item, value in connection.execute(sql, (json.dumps(np.flatnonzero(changed).tolist()),)):
        found.setdefault((key, kind), []).append((item, value))
    for key, column in columns.items():
        for kind in (BOOLEAN, NUMBER, TEXT):
            rows = found.get((key, kind), [])
            values = [value for _, value in rows]
            codes = column.learn(values) if kind == TEXT else values
            column.replace(kind, changed, items=np.array([item for item, _ in rows], np.int64), values=np.array(codes))


class _Column:
    """All values under one key, by kind; texts as codes, in the order of the sorted vocabulary."""

    def __init__(self) -> None:
        self.kinds = {BOOLEAN: _Values(np.int8, absent=-1), NUMBER: _Values(np.float64, absent=np.nan)}
        self.kinds[TEXT] = _Values(np.int32, absent=-1)
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


def _is_number(numbers: NDArray[np.float64]) -> Mask:
    return ~np.isnan(numbers)


def _is_in(numbers: Collection[float]) -> Test:
    return lambda array: np.isin(array, list(numbers))


def _is_code_in(codes: list[int], count: int) -> Test:
    """Whether codes, of which there are `count`, are among the given ones: by a table, 10 times as fast as np.isin."""
    wanted = np.zeros(count + 1, np.bool_)  # absent, -1, is the last one, and never wanted
    wanted[codes] = True
    return lambda array: wanted[array]


class _Values:
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
