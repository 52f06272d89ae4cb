"""Rows, the one form of vectors here, with the functions that make and check them; Neighbors, the results."""

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

CHUNK = 8192  # rows normalised or checked at once: 32 MB of float64 at 512 dimensions
ROUNDING = 2.0**-23  # a float32 row that was normalised once has a norm within this of 1
NORM_TOLERANCE = 1e-3  # a norm further from 1 is a mistake, not rounding


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The best rows of each query, best first.

    Both arrays are (q, k'), k' being the smaller of k and the number of rows searched: they are never padded. Equal
    scores stand in id order.
    """

    ids: Ids
    scores: Scores


def unit_rows(vectors: ArrayLike, *, dimension: int | None = None) -> Rows:
    """Return `vectors`, (n, d) numbers of any real type, as float32 rows of length 1, in a new array.

    Rows that have length 1 already come out bit for bit as they went in, so normalising twice changes nothing.
    A VectorError if they are not (n, d) real numbers, not of `dimension`, or hold a NaN, an infinity or a zero row.
    """
    matrix = _as_real_matrix(vectors)
    _check_dimension(matrix, dimension)
    rows = np.empty(matrix.shape, np.float32)
    for start in range(0, len(matrix), CHUNK):
        rows[start : start + CHUNK] = _normalize(matrix[start : start + CHUNK], start)
    return rows


def check_rows(rows: Rows, *, dimension: int | None = None) -> Rows:
    """Return `rows` as a plain array; a VectorError if they are not float32 (n, d) rows of length 1."""
    matrix = check_matrix(rows, dimension=dimension)
    for start in range(0, len(matrix), CHUNK):
        chunk = matrix[start : start + CHUNK]
        norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))  # written so that a NaN fails
        if len(wrong):
            raise VectorError(
                f"Row {start + wrong[0]} has length {norms[wrong[0]]:g}, not 1. Normalise the vectors with unit_rows."
            )
    return matrix


def check_matrix(rows: Rows, *, dimension: int | None = None) -> Rows:
    """Return `rows` as a plain array; a VectorError if they are not float32 (n, d). A memory map is not read."""
    matrix = np.asarray(rows)
    if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] == 0:  # noqa: PLR2004 - rows and columns
        raise VectorError(
            f"Rows must be a float32 (n, d) matrix, not {matrix.dtype} {matrix.shape}. Make them with unit_rows."
        )
    _check_dimension(matrix, dimension)
    return matrix


def find_distinct(values: Ids) -> Ids:
    """Return the distinct values, ascending.

    numpy.unique without the counts loads numpy.ma on its first call: 25 ms, a tenth of a search from the shell.
    """
    distinct: Ids = np.unique(values, return_counts=True)[0]
    return distinct


@contextmanager
def disable_readahead(rows: Rows) -> Iterator[None]:
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


def _check_dimension(matrix: NDArray[np.generic], dimension: int | None) -> None:
    if dimension is not None and matrix.shape[1] != dimension:
        raise VectorError(
            f"The vectors have dimension {matrix.shape[1]}, and {dimension} is needed. Use one encoder for all of them."
        )


def _as_real_matrix(vectors: ArrayLike) -> NDArray[np.generic]:
    try:
        matrix = np.asarray(vectors)
    except ValueError as error:  # rows of unequal lengths
        raise VectorError(f"The vectors are no matrix ({error}). Pass an (n, d) array of numbers.") from error
    if matrix.dtype.kind not in "fiu":
        raise VectorError(f"Vectors of type {matrix.dtype} are not real numbers. Pass an (n, d) array of floats.")
    if matrix.ndim != 2 or matrix.shape[1] == 0:  # noqa: PLR2004 - rows and columns
        raise VectorError(f"Vectors of shape {matrix.shape} are not (n, d). Pass a single vector v as v[None].")
    return matrix


def _normalize(chunk: NDArray[np.generic], start: int) -> Rows:
    """Divide by the length in float64, where no float32 overflows; `start` is the number of the first row."""
    values = chunk.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        scale = np.max(np.abs(values), axis=1, initial=0)
        wrong = np.flatnonzero(~(np.isfinite(scale) & (scale > 0)))
        if len(wrong):
            what = "is all zeros" if scale[wrong[0]] == 0 else "holds a NaN or an infinity"
            raise VectorError(f"Row {start + wrong[0]} {what}. It has no direction: leave it out.")
        values /= scale[:, None]
        norms = np.sqrt(np.einsum("nd,nd->n", values, values))
        unit = np.abs(norms * scale - 1) <= ROUNDING
    norms[unit] = 1 / scale[unit]
    return np.asarray(values / norms[:, None], np.float32)
