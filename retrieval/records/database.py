"""The SQLite file of a catalog: made, opened, checked, migrated; read and write transactions on it, from any thread.

Write-ahead logging lets readers go on beside the writer, each with the state of the moment it began. `synchronous=FULL`
syncs the log at each commit: what was acknowledged survives a kill and a power cut. A commit costs one sync, and
commits are whole batches.
"""

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from retrieval.errors import CatalogError, CatalogFormatError
from retrieval.records import Records, schema
from retrieval.records.locks import writer_lock

FILE = "catalog.sqlite"
LOCK = "catalog.lock"
PATIENCE = 0.2
"""Seconds that a writer waits for another one: about what a small change takes, and not what a build does."""

_BUSY_SECONDS = 60.0  # readers and writer wait for each other only while SQLite cleans up after a crash


def is_catalog(path: Path) -> bool:
    """Whether there is a catalog in the folder `path`, of any format."""
    return (path / FILE).is_file()


def is_blank(folder: Path) -> bool:
    """Whether the catalog's creation was interrupted before anything was in it."""
    with _reported(folder), _connected(folder / FILE) as connection:
        return schema.is_blank(connection)


def is_new(folder: Path) -> bool:
    """Whether a build would make the catalog: there is nothing yet, or an empty folder, as a new volume is."""
    if is_catalog(folder):
        return is_blank(folder)
    return not folder.exists() or (folder.is_dir() and not _strangers(folder))


def create_database(folder: Path) -> None:
    """Make an empty catalog in `folder`, which is made too; a catalog that is there stays as it is.

    Raises:
        CatalogFormatError: the folder holds other files, or the path is a file.
        CatalogLockedError: another process is making it right now.
    """
    _check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder / LOCK), _reported(folder), _connected(folder / FILE) as connection:
        if schema.is_blank(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection, "BEGIN IMMEDIATE"):
                schema.create(connection)


def upgrade(folder: Path) -> None:
    """Bring a catalog of an older format to this one, where its folder may be written.

    Raises:
        CatalogFormatError: a newer format, or no catalog that is whole.
        CatalogLockedError: another process is writing, to one of an older format.
    """
    if is_catalog(folder) and os.access(folder, os.W_OK):
        Database(folder, read_only=False).close()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connection, and the stamp of the file that it takes to be as it was; None where it looks itself."""

    connection: sqlite3.Connection
    stamp: tuple[int, ...] | None = None

    def sees(self, folder: Path) -> bool:
        """Whether the file is what this connection takes it for, so that it answers as of now."""
        return self.stamp is None or (self.stamp == _stamp(folder) and not _has_log(folder))


class Database:
    """Transactions on one catalog's SQLite file."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open the file, and migrate one of an older format.

        Raises:
            CatalogFormatError: no catalog, a newer format, or an older one that may only be read.
        """
        self.folder = folder
        self.read_only = read_only
        self._process = os.getpid()
        self._idle: deque[_Opened] = deque()
        self._closed = False
        with _reported(folder):
            self._open_checked()

    def _open_checked(self) -> None:
        with self.reading() as records:
            if schema.is_blank(records.connection):
                raise CatalogFormatError(
                    f"{self.folder} holds no catalog: its creation was interrupted. Build it again."
                )
            version = schema.check_format(records.connection, self.folder)
        if version < schema.FORMAT:
            self._migrate(version)

    def _migrate(self, version: int) -> None:
        if self.read_only:
            raise CatalogFormatError(
                f"{self.folder} has the older format {version}. Run `retrieval info {self.folder}` where it may be "
                f"written, or open it without read_only, which brings it to format {schema.FORMAT} with all it holds."
            )
        with writer_lock(self.folder / LOCK), self.writing() as records:
            # Another process may have done it between the look and the lock.
            schema.migrate(records.connection, schema.check_format(records.connection, self.folder))

    @contextmanager
    def reading(self) -> Iterator[Records]:
        """Give records that stay as they are now, whatever others write meanwhile."""
        with _reported(self.folder), self._connection() as connection, _transaction(connection, "BEGIN"):
            yield Records(connection, self.folder)

    @contextmanager
    def writing(self) -> Iterator[Records]:
        """Give records to change; committed and on the disk at the end, unchanged after an error.

        Raises:
            CatalogError: the disk is full or failing.
        """
        with _reported(self.folder), self._connection() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            yield Records(connection, self.folder)

    @contextmanager
    def writer(self, *, patience: float = PATIENCE) -> Iterator[None]:
        """Be the only writer of all processes; wait so many seconds for another one.

        Raises:
            CatalogLockedError: another one writes, and goes on.
            CatalogError: this catalog was opened for reading only.
        """
        if self.read_only:
            raise CatalogError(f"{self.folder} was opened for reading only; open it without read_only to change it.")
        with writer_lock(self.folder / LOCK, patience=patience):
            yield

    def close(self) -> None:
        """Close the connections; the last one of all processes folds the log into the file."""
        self._closed = True
        while self._idle:
            self._idle.pop().connection.close()

    def check_process(self) -> None:
        """Refuse to be used after a fork: locks that a thread of the parent holds would never be let go of.

        Raises:
            CatalogError: another process opened it.
        """
        if os.getpid() != self._process:
            raise CatalogError(f"{self.folder} was opened in the process {self._process}; open it again in this one.")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self.check_process()
        if self._closed:
            raise CatalogError(f"{self.folder} was closed; open it again.")
        opened = self._take()
        try:
            yield opened.connection
        finally:
            self._put_back(opened)

    def _take(self) -> _Opened:
        with suppress(IndexError):
            while True:
                opened = self._idle.pop()
                if opened.sees(self.folder):
                    return opened
                opened.connection.close()
        return _open(self.folder)

    def _put_back(self, opened: _Opened) -> None:
        self._idle.append(opened)
        if self._closed:
            self.close()


@contextmanager
def report_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk says no to into a CatalogError that says what that means for the catalog."""
    try:
        yield
    except OSError as error:
        raise CatalogError(
            f"{folder} could not be written: {error.strerror or error}. "
            f"Everything committed before is kept; free the disk and run it again."
        ) from error


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CatalogFormatError(f"{folder} is a file; name a folder for the catalog.")
    strangers = [] if not folder.exists() or is_catalog(folder) else _strangers(folder)
    if strangers:
        raise CatalogFormatError(
            f"{folder} is not a catalog and not empty ({min(strangers)!r}, ...); name a new or an empty folder."
        )


def _strangers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name not in _OWN]


_OWN = {FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", LOCK}


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # transactions begin and end where this module says
        check_same_thread=False,  # each connection serves one thread at a time
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _open(folder: Path) -> _Opened:
    """Connect also where the folder cannot be written to, which leaves no place for the log's own index.

    There the file is said never to change, so SQLite would answer for good what it said when it was opened.
    """
    stamp = _stamp(folder)
    if os.access(folder, os.W_OK) or _has_log(folder):
        return _Opened(_connect(folder / FILE, "rw"))
    return _Opened(_connect(folder / FILE, "ro&immutable=1"), stamp)


def _stamp(folder: Path) -> tuple[int, ...]:
    """What is another when the file is: a log is folded into it when its last writer closes."""
    try:
        status = (folder / FILE).stat()
    except OSError:  # SQLite says why
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _has_log(folder: Path) -> bool:
    return (folder / f"{FILE}-wal").exists()


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = _connect(path, "rwc")
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CatalogError(
            f"{folder / FILE}: {error}. Everything committed before is kept; "
            f"look at the disk's space and the folder's permissions, and run it again."
        ) from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake of ours, not the file's
    except sqlite3.DatabaseError as error:
        raise CatalogFormatError(
            f"{folder / FILE} is damaged or no catalog ({error}). "
            f"Put it back from a copy, or delete the folder and build it again."
        ) from error
