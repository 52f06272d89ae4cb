"""The attributes of a catalog as in-memory columns: filters in a fraction of the time that SQL takes."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.filters.columns import Column, Columns, Items, Mask
from retrieval.filters.values import BOOLEAN, NUMBER, TEXT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from retrieval.filters.operators import Filter

MAX_COLUMNS = 64  # in memory, the most recently used; one takes 8 bytes an item for numbers, 4 for text
_LATEST_CHANGE = """SELECT
    ifnull((SELECT max(revision) FROM attribute_changes), 0), ifnull((SELECT max(item) FROM attribute_changes), -1)"""


class ColumnStore:
    """The columns of one catalog, each read at its first use; later only changed items are read again.

    Threads may share it, each with its own connection; `revision` is the latest change of an item that it holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: dict[str, Column] = {}
        self._live: Mask = np.zeros(0, np.bool_)
        self.revision = 0
        self._lagging: ColumnStore | None = None  # answers connections at a state before this store's

    def mask(self, condition: Filter, connection: sqlite3.Connection) -> Mask:
        """Return True at the numbers of the live items that satisfy the condition, as the connection sees them now.

        The length is the greatest item number ever stored, plus one. The connection has no uncommitted changes.
        """
        with self.snapshot(connection) as columns:
            return condition.mask(columns) & columns.live

    @contextmanager
    def snapshot(self, connection: sqlite3.Connection) -> Iterator[Columns]:
        """Yield the columns as the connection sees them now; one thread at a time holds them, unchanged."""
        with _transaction(connection):
            with self._lock:
                revision, last = connection.execute(_LATEST_CHANGE).fetchone()
                if revision >= self.revision:
                    self._refresh(connection, revision, last + 1)
                    yield Columns(self._live, partial(self._column, connection=connection))
                    return
                if self._lagging is None or self._lagging.revision > revision:
                    self._lagging = ColumnStore()
                lagging = self._lagging
            with lagging.snapshot(connection) as columns:
                yield columns

    def _refresh(self, connection: sqlite3.Connection, revision: int, size: int) -> None:
        if revision == self.revision:
            return
        changed = _fetch_integers(connection, "SELECT item FROM attribute_changes WHERE revision > ?", self.revision)
        columns, before = self._columns, self.revision
        self._columns, self.revision = {}, 0  # an error below leaves a store that reads everything again
        if before == 0 or len(changed) > max(1000, size // 8):
            self._live = _to_mask(_fetch_integers(connection, "SELECT item FROM live_items"), size)
        else:
            live = np.pad(self._live, (0, size - len(self._live)))
            live[changed] = False
            sql = "SELECT item FROM live_items WHERE item IN (SELECT json_each.value FROM json_each(?))"
            live[_fetch_integers(connection, sql, json.dumps(changed.tolist()))] = True
            self._live = live
            _update_columns(columns, connection, changed=_to_mask(changed, size))
            self._columns = columns
        self.revision = revision

    def _column(self, key: str, connection: sqlite3.Connection) -> Column:
        column = self._columns.pop(key, None) or _read_column(connection, key, len(self._live))
        self._columns[key] = column  # last in the dict: used last
        while len(self._columns) > MAX_COLUMNS:
            del self._columns[next(iter(self._columns))]
        return column


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold one state of the database for all reads inside: the caller's, where it has a transaction open."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _fetch_integers(connection: sqlite3.Connection, sql: str, *parameters: Any) -> Items:
    return np.fromiter((item for (item,) in connection.execute(sql, parameters)), np.int64)


def _to_mask(items: Items, size: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[items] = True
    return mask


def _read_column(connection: sqlite3.Connection, key: str, size: int) -> Column:
    column = Column()
    unchanged = np.zeros(size, np.bool_)
    for kind in (BOOLEAN, NUMBER):
        sql = "SELECT item, value FROM attributes WHERE key = ? AND kind = ?"
        rows = np.array(connection.execute(sql, (key, kind)).fetchall(), np.float64).reshape(-1, 2)
        column.replace(kind, unchanged, items=rows[:, 0].astype(np.int64), values=rows[:, 1])
    # Grouped, since many items share most texts: half the time of one row for each.
    sql = "SELECT value, group_concat(item), count(*) FROM attributes WHERE key = ? AND kind = ? GROUP BY value"
    groups = connection.execute(sql, (key, TEXT)).fetchall()
    column.vocabulary = [text for text, _, _ in groups]
    items = np.fromstring(",".join(numbers for _, numbers, _ in groups), np.int64, sep=",")
    codes = np.repeat(np.arange(len(groups)), [count for _, _, count in groups])
    column.replace(TEXT, unchanged, items=items, values=codes)
    return column


def _update_columns(columns: dict[str, Column], connection: sqlite3.Connection, *, changed: Mask) -> None:
    """Read the changed items again into every column in memory."""
    # The index by item is named, since SQLite might read all rows of a key through the other one.
    sql = (
        "SELECT key, kind, item, value FROM attributes INDEXED BY attributes_by_item "
        "WHERE item IN (SELECT json_each.value FROM json_each(?))"
    )
    by_column: dict[tuple[str, int], list[tuple[int, Any]]] = {}
    for key, kind, item, value in connection.execute(sql, (json.dumps(np.flatnonzero(changed).tolist()),)):
        by_column.setdefault((key, kind), []).append((item, value))
    for key, column in columns.items():
        for kind in (BOOLEAN, NUMBER, TEXT):
            rows = by_column.get((key, kind), [])
            values = [value for _, value in rows]
            codes = column.encode_texts(values) if kind == TEXT else values
            column.replace(kind, changed, items=np.array([item for item, _ in rows], np.int64), values=np.array(codes))
