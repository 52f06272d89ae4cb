"""The SQLite file of a catalog: create, open, check and migrate it; read and write transactions from any thread.

Write-ahead logging lets readers continue beside the writer, each with the state of the moment it began.
`synchronous=FULL` syncs the log at each commit, so acknowledged changes survive a kill and a power cut.
"""

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from retrieval.errors import CatalogError, CatalogFormatError
from retrieval.records import Records, schema
from retrieval.records.locks import writer_lock

FILE = "catalog.sqlite"
LOCK = "catalog.lock"
PATIENCE = 0.2
"""Seconds that a writer waits for another one: as long as a small change takes, not a build."""

_Stamp: TypeAlias = tuple[int, int, int]

_BUSY_SECONDS = 60.0  # readers and writer wait for each other only while SQLite cleans up after a crash


def is_catalog(path: Path) -> bool:
    """Whether the folder `path` is a catalog, of any format."""
    return (path / FILE).is_file()


def is_blank(folder: Path) -> bool:
    """Whether the creation of the catalog was interrupted before its first commit."""
    with _translate_errors(folder), closing(_connect(folder / FILE, "rwc")) as connection:
        return schema.is_blank(connection)


def is_new(folder: Path) -> bool:
    """Whether a build would create the catalog: the folder does not exist, or is empty, as a new volume is."""
    if is_catalog(folder):
        return is_blank(folder)
    return not folder.exists() or (folder.is_dir() and not _other_files(folder))


def missing_catalog(folder: Path) -> CatalogError:
    """Return the error that says what the folder `folder`, which is no catalog, is instead."""
    if folder.exists():
        if is_new(folder):
            return CatalogError(f"{folder} is empty. Build a catalog there first.")
        return CatalogFormatError(f"{folder} is not a catalog. Name the folder that `build` wrote.")
    return CatalogError(f"There is no catalog at {folder}. Build one there, with an encoder.")


def create_database(folder: Path) -> None:
    """Create an empty catalog in `folder`, unless it is one; a folder of other files is a CatalogFormatError."""
    if folder.exists() and not folder.is_dir():
        raise CatalogFormatError(f"{folder} is a file; name a folder for the catalog.")
    if folder.exists() and not is_catalog(folder) and (others := _other_files(folder)):
        raise CatalogFormatError(
            f"{folder} is not a catalog and not empty ({min(others)!r}, ...); name a new or an empty folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (
        writer_lock(folder / LOCK),
        _translate_errors(folder),
        closing(_connect(folder / FILE, "rwc")) as connection,
    ):
        if schema.is_blank(connection):
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection, "BEGIN IMMEDIATE"):
                schema.create(connection)


def upgrade(folder: Path) -> None:
    """Migrate a catalog of an older format, where its folder may be written."""
    if is_catalog(folder) and os.access(folder, os.W_OK):
        Database(folder, read_only=False).close()


class Database:
    """Transactions on one catalog's SQLite file."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open the file and migrate an older format; a newer one, or no catalog, is a CatalogFormatError."""
        self.folder = folder
        self.read_only = read_only
        self._process = os.getpid()
        self._idle: deque[tuple[sqlite3.Connection, _Stamp | None]] = deque()
        self._closed = False
        with self.reading() as records:
            if schema.is_blank(records.connection):
                raise CatalogFormatError(f"{folder} holds no catalog: its creation was interrupted. Build it again.")
            version = schema.check_format(records.connection, folder)
        if version == schema.FORMAT:
            return
        if read_only:
            raise CatalogFormatError(
                f"{folder} has the older format {version}. Run `retrieval info {folder}` where it may be written, "
                f"or open it without read_only, which brings it to format {schema.FORMAT} with all it holds."
            )
        with writer_lock(folder / LOCK), self.writing() as records:
            # Another process may have migrated it before this one had the lock.
            schema.migrate(records.connection, schema.check_format(records.connection, folder))

    def reading(self) -> AbstractContextManager[Records]:
        """Return a transaction whose records stay as they are at its begin, whatever others write meanwhile."""
        return self._transaction("BEGIN")

    def writing(self) -> AbstractContextManager[Records]:
        """Return a transaction that changes records: committed and synced at its end, rolled back after an error."""
        return self._transaction("BEGIN IMMEDIATE")

    def writer(self, *, patience: float = PATIENCE) -> AbstractContextManager[None]:
        """Be the only writer of all processes; wait `patience` seconds, then raise a CatalogLockedError."""
        if self.read_only:
            raise CatalogError(f"{self.folder} was opened for reading only; open it without read_only to change it.")
        return writer_lock(self.folder / LOCK, patience=patience)

    def close(self) -> None:
        """Close the connections; the last one of all processes folds the log into the file."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].close()

    def check_process(self) -> None:
        """Raise a CatalogError after a fork: locks that a thread of the parent holds would never be released."""
        if os.getpid() != self._process:
            raise CatalogError(f"{self.folder} was opened in the process {self._process}; open it again in this one.")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Records]:
        self.check_process()
        if self._closed:
            raise CatalogError(f"{self.folder} was closed; open it again.")
        with _translate_errors(self.folder):
            opened = self._take_connection()
            try:
                with _transaction(opened[0], begin):
                    yield Records(opened[0], self.folder)
            finally:
                self._give_back(opened)

    def _give_back(self, opened: tuple[sqlite3.Connection, _Stamp | None]) -> None:
        self._idle.append(opened)
        if self._closed:
            self.close()

    def _take_connection(self) -> tuple[sqlite3.Connection, _Stamp | None]:
        """Return an idle connection, or a new one, that sees the file as it is now.

        Where the folder cannot be written, SQLite has no place for the log's index, and the file is opened as
        immutable: such a connection never sees a change, so its stamp says which file it is of.
        """
        while self._idle:
            try:
                connection, stamp = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if stamp is None or (stamp == _stamp(self.folder) and not _has_log(self.folder)):
                return connection, stamp
            connection.close()
        if os.access(self.folder, os.W_OK) or _has_log(self.folder):
            return _connect(self.folder / FILE, "rw"), None
        stamp = _stamp(self.folder)
        return _connect(self.folder / FILE, "ro&immutable=1"), stamp


@contextmanager
def report_disk_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError as a CatalogError that says what it means for the catalog."""
    try:
        yield
    except OSError as error:
        raise CatalogError(
            f"{folder} could not be written: {error.strerror or error}. "
            f"All committed changes are kept; free some disk space and run it again."
        ) from error


def _other_files(folder: Path) -> list[str]:
    own = {FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", LOCK}
    return [path.name for path in folder.iterdir() if path.name not in own]


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


def _stamp(folder: Path) -> _Stamp:
    """Return what changes with the file: its last writer folds the log into it when it closes."""
    try:
        status = (folder / FILE).stat()
    except OSError:  # SQLite will report the reason
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _has_log(folder: Path) -> bool:
    return (folder / f"{FILE}-wal").exists()


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
def _translate_errors(folder: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours, except those that a mistake of ours causes."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CatalogError(
            f"{folder / FILE}: {error}. All committed changes are kept; "
            f"check the disk space and the permissions of the folder, and run it again."
        ) from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise CatalogFormatError(
            f"{folder / FILE} is damaged or no catalog ({error}). "
            f"Restore it from a copy, or delete the folder and build it again."
        ) from error
