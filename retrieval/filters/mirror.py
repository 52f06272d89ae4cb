"""Attributes mirrored in memory: filters as masks over columns, in a fraction of the time that SQL takes."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.filters import Every, Filter, Not, Some
from retrieval.filters.attributes import BOOLEAN, NUMBER, TEXT, filter_sql
from retrieval.filters.columns import Column, Items, Mask

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

MAX_COLUMNS = 64
"""Columns kept at once, the last used ones. One takes 8 bytes an item for numbers, 4 for text."""


class Mirror:
    """The attributes of one catalog as columns, each read at its first use; later only changed items are read again.

    Safe to share between threads that each bring their own connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: dict[str, Column] = {}
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
            return self.columns(connection).mask(condition)

    @contextmanager
    def reading(self, connection: sqlite3.Connection) -> Iterator[Columns]:
        """Give the columns as the connection sees them now; they stay so while they are held, by one thread at once."""
        with _snapshot(connection):
            with self._lock:
                revision, size = _state(connection)
                if revision >= self._revision:
                    self._refresh(connection, revision, size)
                    yield self.columns(connection)
                    return
            with Mirror().reading(connection) as columns:  # another thread's snapshot is newer than this one
                yield columns

    def columns(self, connection: sqlite3.Connection) -> Columns:
        """Return the columns as of the last refresh, for whoever holds the lock."""
        return Columns(self._live, partial(self._column, connection=connection))

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

    def _column(self, key: str, connection: sqlite3.Connection) -> Column:
        column = self._columns.pop(key, None) or _read_column(connection, key, len(self._live))
        self._columns[key] = column  # last in the dict: used last
        while len(self._columns) > MAX_COLUMNS:
            del self._columns[next(iter(self._columns))]
        return column


class Columns:
    """The attributes of the live items, by item number."""

    def __init__(self, live: Mask, column: Callable[[str], Column]) -> None:
        """Take the mask of live items, whose length is the greatest item number plus one, and a reader of columns."""
        self.live = live
        self.of = column

    def mask(self, condition: Filter) -> Mask:
        """True at the numbers of live items for which the condition holds."""
        return self._evaluate(condition) & self.live

    def _evaluate(self, condition: Filter) -> Mask:
        if isinstance(condition, Not):
            return ~self._evaluate(condition.part)
        if isinstance(condition, Every | Some):
            every = isinstance(condition, Every)
            mask = np.full(len(self.live), every)
            for part in condition.parts:
                (np.logical_and if every else np.logical_or)(mask, self._evaluate(part), out=mask)
            return mask
        return self.of(condition.key).where(condition, len(self.live))


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


def _read_column(connection: sqlite3.Connection, key: str, size: int) -> Column:
    column = Column()
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


def _update_columns(columns: dict[str, Column], connection: sqlite3.Connection, *, changed: Mask) -> None:
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
