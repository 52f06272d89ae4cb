"""Vectors in append-only files: `images-1.f32` holds the rows of slots 0, 1, 2... as little-endian float32.

The records say how many rows are committed. What follows them in the file is left from an unfinished write: a writer
truncates it, a reader ignores it.
"""

import os
from io import FileIO
from pathlib import Path

import numpy as np

from index.vectors import Rows
from retrieval.errors import CatalogError
from retrieval.files import fsync

STORED = np.dtype("<f4")
_COPIED_ROWS = 8192  # rows copied at once: 16 MB at dimension 512


def vector_path(folder: Path, side: str, generation: int) -> Path:
    """Return the path of one generation of a side's vectors; compaction writes the next one beside it."""
    return folder / f"{side}-{generation}.f32"


def map_rows(path: Path, *, count: int, dimension: int) -> Rows:
    """Return the first `count` rows of the file, `(count, dimension)`, memory-mapped read-only.

    Raises:
        FileNotFoundError: another process has compacted this generation away.
        CatalogError: the file holds fewer rows than the records name.
    """
    if count == 0:
        return np.empty((0, dimension), dtype=np.float32)
    _check_length(path, path.stat().st_size, count=count, dimension=dimension)
    return np.memmap(path, dtype=STORED, mode="r", shape=(count, dimension))


def append_rows(path: Path, rows: Rows, *, at: int) -> None:
    """Write and sync `(n, d)` rows behind the `at` committed ones, in place of any tail.

    Raises:
        OSError: the disk is full or failing; the committed rows are untouched, the new ones are truncated.
        CatalogError: the file holds fewer than the committed rows.
    """
    start = at * rows.shape[1] * STORED.itemsize
    is_new = at == 0 and not path.exists()
    with path.open("wb" if is_new else "r+b", buffering=0) as file:
        _check_length(path, os.fstat(file.fileno()).st_size, count=at, dimension=rows.shape[1])
        file.truncate(start)
        file.seek(start)
        try:
            _write_all(file, np.ascontiguousarray(rows, dtype=STORED))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)  # deleting items to make room needs some room itself
            raise
    if is_new:
        fsync(path.parent)


def copy_rows(rows: Rows, slots: np.ndarray, path: Path) -> None:
    """Write and sync the rows at `slots`, in that order, as a new file.

    Raises:
        OSError: the disk is full or failing; no part of a file is left.
    """
    try:
        with path.open("wb") as file:
            for start in range(0, len(slots), _COPIED_ROWS):
                block = rows[slots[start : start + _COPIED_ROWS]]
                file.write(np.ascontiguousarray(block, dtype=STORED).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def index_path(folder: Path, side: str, generation: int) -> Path:
    """Return the path of the saved index of one generation: a cache that may be deleted at any time."""
    return folder / f"{side}-{generation}.faiss"


def remove_other_generations(folder: Path, side: str, *, generation: int) -> None:
    """Delete what a finished or an interrupted compaction left; readers that map an old file keep it."""
    for path in folder.glob(f"{side}-*"):
        if not path.name.startswith(f"{side}-{generation}."):
            path.unlink(missing_ok=True)


def _check_length(path: Path, size: int, *, count: int, dimension: int) -> None:
    held = size // (STORED.itemsize * dimension)
    if held < count:
        raise CatalogError(
            f"{path} holds {held} vectors where the records name {count}: it was truncated or replaced. "
            f"Restore the file from a copy, or delete the catalog and build it again."
        )


def _write_all(file: FileIO, rows: Rows) -> None:
    """Write without a buffer: closing a buffered file would try again to write what found no room."""
    rest = rows.data.cast("B")
    while rest:
        rest = rest[file.write(rest) :]
