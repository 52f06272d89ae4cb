"""One writer among processes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.errors import CatalogError, CatalogLockedError

_PAUSE = 0.005  # seconds between two tries: a small change takes about as long


@contextmanager
def writer_lock(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Be the only process that writes; the lock goes with the process, however that ends.

    The lock file says who has it and stays behind: an empty or an old one means nothing.

    Args:
        path: The lock file.
        patience: Seconds to wait for another writer, whose change may be a small one.

    Raises:
        CatalogError: the folder cannot be written.
        CatalogLockedError: another process (or another Catalog object of this one) is writing.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CatalogError(
            f"{path.parent} cannot be written: {error.strerror}. Searching it works; to change it, "
            f"copy it to where you may write, or get write access."
        ) from error
    try:
        until = time.monotonic() + patience
        while not _locked(descriptor):
            if time.monotonic() >= until:
                raise CatalogLockedError(_who_writes(path, os.pread(descriptor, 32, 0)))
            time.sleep(_PAUSE)
        with suppress(OSError):  # a full disk holds no name, but the lock
            os.ftruncate(descriptor, os.pwrite(descriptor, b"%d\n" % os.getpid(), 0))
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether a process writes now, by its lock file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who_writes(path: Path, content: bytes) -> str:
    process = content.decode("ascii", "replace").strip() or "unknown"
    which = "this process, by another Catalog object" if process == str(os.getpid()) else f"process {process}"
    return (
        f"{path.parent} is being written by {which}. Searches go on meanwhile; "
        f"to write, wait until it is done, stop it, or send the changes through it."
    )
