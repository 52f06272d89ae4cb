"""One writer among processes: a lock file in the catalog's folder, which says who holds it and is never deleted."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retrieval.errors import CatalogError, CatalogLockedError

if TYPE_CHECKING:
    from filelock import FileLock

_POLL: Final = 0.005  # seconds: a small change takes about as long
_PROBE: Final = 0.05  # seconds: another thread may be probing too


@contextmanager
def writer_lock(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Be the only process that writes; the lock goes with the process, however that ends.

    Another writer is waited for `patience` seconds, since its change may be small.

    Raises:
        CatalogError: the folder cannot be written.
        CatalogLockedError: another process (or another Catalog object of this one) is writing.
    """
    from filelock import Timeout

    lock = _lock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        process = path.read_text(errors="replace").strip() or "unknown"
        which = "this process, by another Catalog object" if process == str(os.getpid()) else f"process {process}"
        raise CatalogLockedError(
            f"{path.parent} is being written by {which}. Searches still work; "
            f"to write, wait until it has finished, stop it, or send the changes through it."
        ) from None
    except OSError as error:
        raise CatalogError(
            f"{path.parent} cannot be written: {error.strerror}. Searches still work; "
            f"to change it, copy it to a writable folder, or get write access."
        ) from error
    try:
        # Overwritten, not emptied: closing an emptied file waits for the disk. A full disk has no room for a name.
        with suppress(OSError), path.open("r+b", buffering=0) as file:
            file.truncate(file.write(b"%d\n" % os.getpid()))
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process writes now, by its lock file."""
    from filelock import Timeout

    try:
        with _lock(path, timeout=_PROBE):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _lock(path: Path, *, timeout: float) -> "FileLock":
    from filelock import FileLock  # loads asyncio: only writers need it

    return FileLock(path, timeout=timeout, poll_interval=_POLL, thread_local=False)
