"""One training at a time in a run's folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from retrieval.errors import TrainingError

LOCK_FILE: Final = "lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Be the only process that trains in a run's folder, which is made; a folder that stays empty goes again.

    The lock goes with the process, however that ends.

    Raises:
        TrainingError: another one trains there, or the folder cannot be written.
    """
    path = folder / "training" / LOCK_FILE
    new = [one for one in (path.parent, folder) if not one.exists()]
    descriptor = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for made in new:
            with suppress(OSError):  # there is something in it
                made.rmdir()


def _locked(path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise TrainingError(f"{path.parent.parent} cannot be written: {error.strerror}; name another") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise TrainingError(
                f"another training is under way in {path.parent.parent} (process {process}); wait until it is done, or"
                " name another folder"
            ) from None
        if _is_at(path, descriptor):
            os.ftruncate(descriptor, os.pwrite(descriptor, b"%d\n" % os.getpid(), 0))
            return descriptor
        os.close(descriptor)  # whoever had it has removed it meanwhile: a lock on that means nothing


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
