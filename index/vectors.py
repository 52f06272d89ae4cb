"""Rows, the one form of vectors here, with the one door that makes them; Neighbors, the one form of answers."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.errors import VectorError

Rows: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

CHUNK = 8192  # rows that pass the door at once: 32 MB of float64 at 512 dimensions
ROUNDING = 2.0**-23  # a float32 row that was normalised once has a norm within this of 1
UNIT = 1e-3  # how far from 1 a norm may be before it is a mistake and not a rounding


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The best rows of each query, best first.

    Both arrays are (q, k'), with k' the lesser of the asked k and the number of rows that could be answered: they
    are never padded. Equal scores stand in id order.
    """

    ids: Ids
    scores: Scores


def unit_rows(vectors: ArrayLike, *, dimension: int | None = None) -> Rows:
    """Return `vectors`, (n, d) numbers of any real type, as float32 rows of length 1, in a new array.

    Rows that are of length 1 already come out bit for bit as they went in, so a vector may pass any number of times.

    Raises:
        VectorError: not (n, d) real numbers, another dimension than asked, a NaN, an infinity or a zero row.
    """
    given = _real_matrix(vectors)
    if dimension is not None and given.shape[1] != dimension:
        raise VectorError(
            f"vectors of dimension {given.shape[1]} where {dimension} is needed: use one encoder for all of them"
        )
    rows = np.empty(given.shape, np.float32)
    for start in range(0, len(given), CHUNK):
        rows[start : start + CHUNK] = _normalised(given[start : start + CHUNK], start)
    return rows


def checked_rows(rows: Rows, *, dimension: int | None = None) -> Rows:
    """Return `rows` unchanged, as a plain array, having looked at every row.

    Raises:
        VectorError: not float32 (n, d) rows of length 1; `unit_rows` makes them so.
    """
    plain = checked_matrix(rows, dimension=dimension)
    for start in range(0, len(plain), CHUNK):
        chunk = plain[start : start + CHUNK]
        norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= UNIT))  # the form that a NaN fails
        if len(wrong):
            raise VectorError(
                f"row {start + wrong[0]} has length {norms[wrong[0]]:g}, not 1: pass it through unit_rows"
            )
    return plain


def checked_matrix(rows: Rows, *, dimension: int | None = None) -> Rows:
    """Return `rows` as a plain array (a memory map too, without reading it), having looked at its shape alone.

    Raises:
        VectorError: not a float32 (n, d) matrix of that dimension.
    """
    plain = np.asarray(rows)
    if plain.dtype != np.float32 or plain.ndim != 2 or plain.shape[1] == 0:  # noqa: PLR2004 - rows and columns
        raise VectorError(f"rows are float32 (n, d), not {plain.dtype} {plain.shape}: pass them through unit_rows")
    if dimension is not None and plain.shape[1] != dimension:
        raise VectorError(f"rows of dimension {plain.shape[1]} where {dimension} is needed: use one encoder for all")
    return plain


@contextmanager
def no_readahead(rows: Rows) -> Iterator[None]:
    """Keep the system from reading megabytes (8 each, where this was measured) around every row of a memory map."""
    owner: object = rows
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_RANDOM"):
        yield
        return
    owner.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        owner.madvise(mmap.MADV_NORMAL)


def _real_matrix(vectors: ArrayLike) -> NDArray[np.generic]:
    try:
        given = np.asarray(vectors)
    except ValueError as error:  # rows of unequal lengths
        raise VectorError(f"vectors are not a matrix ({error}): pass an (n, d) array of numbers") from error
    if given.dtype.kind not in "fiu":
        raise VectorError(f"vectors of type {given.dtype} are not real numbers: pass an (n, d) array of floats")
    if given.ndim != 2 or given.shape[1] == 0:  # noqa: PLR2004 - rows and columns
        raise VectorError(f"vectors of shape {given.shape} are not (n, d): a single vector v goes in as v[None]")
    return given


def _normalised(chunk: NDArray[np.generic], start: int) -> Rows:
    """Divide by the length in float64, where no float32 overflows; `start` is the number of the first row."""
    values = chunk.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        scale = np.max(np.abs(values), axis=1, initial=0)
        _refuse(scale, start)
        values /= scale[:, None]
        norms = np.sqrt(np.einsum("nd,nd->n", values, values))
        unit = np.abs(norms * scale - 1) <= ROUNDING
    norms[unit] = 1 / scale[unit]
    return np.asarray(values / norms[:, None], np.float32)


def _refuse(scale: NDArray[np.float64], start: int) -> None:
    """Raise for the first row whose greatest size is zero or no number."""
    wrong = np.flatnonzero(~(np.isfinite(scale) & (scale > 0)))
    if len(wrong):
        what = "is all zeros" if scale[wrong[0]] == 0 else "holds a NaN or an infinity"
        raise VectorError(f"row {start + wrong[0]} {what}: it has no direction, leave it out")
