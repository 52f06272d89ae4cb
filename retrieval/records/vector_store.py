"""Rows of vectors in append-only files: `images-1.f32` holds slots 0, 1, 2... one after another, little-endian float32.

A file knows nothing of its own length: the records name how many rows are committed, and whatever lies behind them is
what an unfinished write left. A writer cuts that tail off, a reader never looks at it.
"""

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np

from index.vectors import Rows
from retrieval.errors import CatalogError
from retrieval.files import sync

STORED = np.dtype("<f4")
_COPIED_ROWS = 8192  # rows copied at once: 16 MB at dimension 512


def vector_path(folder: Path, side: str, generation: int) -> Path:
    """Path of one generation of a side's vectors; compaction writes the next generation beside it."""
    return folder / f"{side}-{generation}.f32"


def map_rows(path: Path, *, count: int, dimension: int) -> Rows:
    """The first `count` rows of the file, `(count, dimension)`, mapped read-only: nothing is read before it is used.

    Raises:
        FileNotFoundError: the generation is gone, because another process compacted it away.
        CatalogError: the file holds fewer rows than the records name.
    """
    if count == 0:
        return np.empty((0, dimension), dtype=np.float32)
    _check_length(path, path.stat().st_size, count=count, dimension=dimension)
    return np.memmap(path, dtype=STORED, mode="r", shape=(count, dimension))


def append_rows(path: Path, rows: Rows, *, at: int) -> None:
    """Write `(n, d)` rows behind the `at` committed ones, in place of any tail, and wait until the disk has them.

    Raises:
        OSError: the disk is full or failing; the committed rows are untouched, and what was written is taken back.
        CatalogError: the file holds fewer than the committed rows.
    """
    start = at * rows.shape[1] * STORED.itemsize
    fresh = at == 0 and not path.exists()
    with path.open("wb" if fresh else "r+b", buffering=0) as file:
        _check_length(path, os.fstat(file.fileno()).st_size, count=at, dimension=rows.shape[1])
        file.truncate(start)
        file.seek(start)
        try:
            _write_all(file, np.ascontiguousarray(rows, dtype=STORED))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)  # who deletes something to make room needs a little of it
            raise
    if fresh:
        sync(path.parent)


def copy_rows(rows: Rows, slots: np.ndarray, path: Path) -> None:
    """Write the rows at `slots`, in that order, as a new file, and wait until the disk has them.

    Raises:
        OSError: the disk is full or failing; no part of a file is left there.
    """
    try:
        with path.open("wb") as file:
            for block in _blocks(slots):
                file.write(np.ascontiguousarray(rows[block], dtype=STORED).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    sync(path.parent)


def index_path(folder: Path, side: str, generation: int) -> Path:
    """Path of the saved index of one generation of vectors: a cache that may be deleted at any time."""
    return folder / f"{side}-{generation}.faiss"


def remove_other_generations(folder: Path, side: str, *, generation: int) -> None:
    """Delete what a finished or an interrupted compaction left; who still has an old file mapped keeps it."""
    for path in folder.glob(f"{side}-*"):
        if not path.name.startswith(f"{side}-{generation}."):
            path.unlink(missing_ok=True)


def _check_length(path: Path, size: int, *, count: int, dimension: int) -> None:
    held = size // (STORED.itemsize * dimension)
    if held < count:
        raise CatalogError(
            f"{path} holds {held} vectors where the records name {count}: it was cut or replaced. "
            f"Put the file back from a copy, or delete the catalog and build it again."
        )


def _write_all(file: FileIO, rows: Rows) -> None:
    """Write without a buffer, of which closing the file would try to write the rest again."""
    rest = rows.data.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _blocks(slots: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(slots), _COPIED_ROWS):
        yield slots[start : start + _COPIED_ROWS]
