"""Exact top-k by blocked matrix products: the oracle of the tests, and the way small and filtered searches run.

A float32 matrix product finds the candidates; their scores are then computed again in float64, in one fixed way, and
rounded to float32. So a score depends on nothing but the two vectors: not on the block, the BLAS library, the number
of queries or the filter. Candidates are kept with the margin that rounding in the product can reach, so the ranking
is that of the exact scores, equal rows have equal scores, and equal scores stand in id order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from index.errors import SpecError
from index.vectors import Ids, Mask, Neighbors, Rows, Scores, checked_matrix

QUERY_BLOCK = 512
SCORE_BLOCK = 1 << 22  # scores at once: 16 MB; smaller ones gain nothing, and each is a meeting of OpenBLAS's threads
SINGLY_BLOCK = 1 << 23  # numbers that single queries are multiplied with in turn: 32 MB, what a cache may hold
MANY = 256  # queries above which a matrix product by rows, in score blocks of 4 MB, is the faster by a tenth
MANY_BLOCK = 1 << 20
GROUP = 16  # scores under one maximum
CROWD = 4  # times k groups a query: more, and a panel's own k-th peak is worth finding
LEAST = np.float32(-2)  # below every cosine
MASKED = np.float32(-4)  # added to a cosine leaves it below LEAST
GATHER_BLOCK = 4096  # gathered rows at once
PAIR_BLOCK = 256  # pairs scored in float64 at once: 2 MB at 512 dimensions
COPYING = 4.5  # what copying a row costs, in readings of a row by one matrix-vector product


def exact_search(queries: Rows, rows: Rows, k: int, *, allowed: Ids | None = None) -> Neighbors:
    """Return the k rows of greatest cosine to each query, truly the greatest, among all or among `allowed`.

    Args:
        queries: unit rows, (q, d).
        rows: unit rows, (n, d); a memory map is read once for each 256 queries.
        k: how many to find; fewer come back where there are fewer.
        allowed: row numbers that may be answered, sorted and without doubles; all where None.

    Returns:
        Row numbers and cosines, both (q, min(k, allowed)), best first, equal scores by row number.

    Raises:
        VectorError: not two float32 matrices of one dimension.
        SpecError: k below 1, or `allowed` unsorted or outside the rows.
    """
    rows = checked_matrix(rows)
    queries = checked_matrix(queries, dimension=rows.shape[1])
    checked_count(k)
    if allowed is None:
        return masked_search(queries, rows, k, mask=None)
    allowed = _checked_allowed(allowed, len(rows))
    if gathering_pays(len(queries), len(rows), len(allowed)):
        return gathered_search(queries, rows, k, ids=allowed)
    return masked_search(queries, rows, k, mask=mask_of(allowed, len(rows)))


def search_among(queries: Rows, rows: Rows, k: int, *, mask: Mask) -> Neighbors:
    """Return the same as `exact_search` for the rows that `mask` (n,) holds, by the cheaper way."""
    allowed = int(np.count_nonzero(mask))
    if allowed == len(rows):
        return masked_search(queries, rows, k, mask=None)
    if gathering_pays(len(queries), len(rows), allowed):
        return gathered_search(queries, rows, k, ids=np.flatnonzero(mask))
    return masked_search(queries, rows, k, mask=mask)


def mask_of(ids: Ids, count: int) -> Mask:
    """Return the mask (count,) that holds at `ids`."""
    mask = np.zeros(count, np.bool_)
    mask[ids] = True
    return mask


def masked_search(queries: Rows, rows: Rows, k: int, *, mask: Mask | None) -> Neighbors:
    """Multiply with every row and pass over the scores of those that `mask` (n,) does not hold."""
    count = len(rows) if mask is None else int(np.count_nonzero(mask))
    return _in_query_blocks(queries, rows, min(k, count), ids=None, mask=mask)


def gathered_search(queries: Rows, rows: Rows, k: int, *, ids: Ids) -> Neighbors:
    """Copy the rows `ids` (sorted) together and multiply with them alone."""
    return _in_query_blocks(queries, rows, min(k, len(ids)), ids=ids, mask=None)


def gathering_pays(queries: int, rows: int, allowed: int) -> bool:
    """Whether copying the allowed rows together costs less than masking the scores of all rows.

    Measured at 100,000 x 512 they break even at 16 % allowed for one query, 43 % for 8, 69 % for 64, 86 % for 256;
    masking costs at most a tenth more than no filter, so neither way ever costs twice.
    """
    work = 1 + min(queries, QUERY_BLOCK) / 8
    return allowed * (COPYING + work) < rows * work


def pair_scores(queries: Rows, rows: Rows, *, query: Ids, row: Ids) -> Scores:
    """Return the cosine of queries[query[i]] and rows[row[i]] for each i, (p,): the one way that scores are made.

    float64 sums of exact products, rounded once: equal vectors give equal scores wherever they stand.
    """
    scores = np.empty(len(query), np.float32)
    for start in range(0, len(query), PAIR_BLOCK):
        part = slice(start, start + PAIR_BLOCK)
        left, right = queries[query[part]].astype(np.float64), rows[row[part]].astype(np.float64)
        scores[part] = np.einsum("pd,pd->p", left, right)
    return scores


@dataclass(frozen=True, slots=True)
class Pairs:
    """Scored pairs of a query and a row, flat: three arrays of one length."""

    query: Ids
    row: Ids
    score: Scores

    def best(self, k: int) -> "Pairs":
        """Return the k best pairs of each query, in the order of queries, best first, equal scores in row order."""
        order = np.lexsort((self.row, -self.score, self.query))
        return self.take(order[places(self.query[order]) < k])

    @classmethod
    def of(cls, found: Neighbors, *, first: int = 0) -> "Pairs":
        """Return neighbors as pairs, in their order; `first` is added to each id."""
        query = np.repeat(np.arange(len(found.ids)), found.ids.shape[1])
        return cls(query, found.ids.ravel() + first, found.scores.ravel())

    @classmethod
    def joined(cls, parts: "Sequence[Pairs]") -> "Pairs":
        """Return the pairs of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def take(self, where: Ids | Mask) -> "Pairs":
        """Return some of the pairs, as numpy indexing picks them."""
        return Pairs(self.query[where], self.row[where], self.score[where])


def places(query: Ids) -> Ids:
    """Return the place of each entry in its run of equal queries, from 0; `query` is sorted."""
    counts = np.bincount(query)
    return np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)


def rounding(dimension: int) -> float:
    """Return how far a float32 sum of the products of two unit rows, in any order, can be from the exact one.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; 2 more for our own rounding.
    """
    return (dimension + 2) * 2.0**-24 * 1.01


def checked_count(k: int) -> None:
    """Refuse a number of results that no search can return."""
    if k < 1:
        raise SpecError(f"k is {k}: ask for at least one result")


def _in_query_blocks(queries: Rows, rows: Rows, k: int, *, ids: Ids | None, mask: Mask | None) -> Neighbors:
    found = Neighbors(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    for start in range(0, len(queries) if k else 0, QUERY_BLOCK):
        part = slice(start, start + QUERY_BLOCK)
        best = _Best(queries[part], rows, k)
        panels = (
            _masked_panels(queries[part], rows, mask) if ids is None else _gathered_panels(queries[part], rows, ids)
        )
        for scores, panel_ids in panels:
            best.offer(scores, panel_ids)
        found.ids[part], found.scores[part] = best.result()
    return found


def _masked_panels(queries: Rows, rows: Rows, mask: Mask | None) -> Iterator[tuple[Scores, Ids]]:
    """Yield the scores (q, w) of w rows at a time, below LEAST where the mask does not hold, with their ids (w,)."""
    width = _padded(min(len(rows), (MANY_BLOCK if len(queries) > MANY else SCORE_BLOCK) // len(queries)))
    buffer = np.empty(len(queries) * width, np.float32)
    for start in range(0, len(rows), width):
        ids = np.arange(start, min(start + width, len(rows)))
        held = None if mask is None else mask[start : start + width]
        if held is not None and not held.any():
            continue
        scores = _product(queries, rows[start : start + width], buffer)
        if held is not None and not held.all():
            scores[:, : len(ids)] += MASKED * (1 - held.astype(np.float32))  # four times as fast as numpy.where
        yield scores, ids


def _gathered_panels(queries: Rows, rows: Rows, ids: Ids) -> Iterator[tuple[Scores, Ids]]:
    """Yield the scores (q, w) of the rows `ids`, copied together w at a time, with their ids (w,)."""
    width = _padded(min(len(ids), GATHER_BLOCK))
    buffer = np.empty(len(queries) * width, np.float32)
    copied = np.empty((width, rows.shape[1]), np.float32)
    for start in range(0, len(ids), width):
        part = ids[start : start + width]
        block = copied[: len(part)]
        np.take(rows, part, axis=0, out=block, mode="clip")  # "raise" would copy once more
        yield _product(queries, block, buffer), part


def _product(queries: Rows, block: Rows, buffer: Scores) -> Scores:
    """Multiply into the buffer, (q, w), its last columns below LEAST up to a whole number of groups."""
    width = _padded(len(block))
    room = buffer[: len(queries) * width]
    if len(queries) > MANY:
        scores = room.reshape(width, len(queries)).T
        np.matmul(block, queries.T, out=scores[:, : len(block)].T)
    elif len(queries) <= 2 + block.shape[1] // 256:  # measured from 32 to 1,024 dimensions
        scores = room.reshape(len(queries), width)
        _multiply_singly(queries, block, scores)
    else:
        scores = room.reshape(len(queries), width)
        np.matmul(queries, block.T, out=scores[:, : len(block)])
    scores[:, len(block) :] = MASKED
    return scores


def _multiply_singly(queries: Rows, block: Rows, scores: Scores) -> None:
    """Multiply by one query after the other, which spares BLAS packing the rows: 9 ms against 16 at 3 queries."""
    step = max(1, SINGLY_BLOCK // block.shape[1])
    for start in range(0, len(block), step):
        part = block[start : start + step]
        for query, out in zip(queries, scores, strict=True):
            np.dot(part, query, out=out[start : start + len(part)])


def _padded(width: int) -> int:
    return -(-width // GROUP) * GROUP


@dataclass(slots=True)
class _Best:
    """What may be among the k best rows of each query, from the panels seen so far.

    A row can be where its product is at least `floor` (q,): the k-th best product so far, less what rounding may
    have moved both. Few rows can, so most scores are read once, by a maximum over groups.
    """

    queries: Rows
    rows: Rows
    k: int
    margin: float = field(init=False)
    floor: Scores = field(init=False)
    pairs: list[Pairs] = field(default_factory=list)
    settled: int = 0

    def __post_init__(self) -> None:
        self.margin = 2 * rounding(self.rows.shape[1])
        self.floor = np.full(len(self.queries), LEAST, np.float32)

    def offer(self, scores: Scores, ids: Ids) -> None:
        """Take what may be among the best from a panel: scores (q, w) and ids (w,), w a whole number of groups."""
        fold = _fold(scores.shape[1], self.k)
        groups = scores.reshape(len(scores), fold, -1)  # (q, members, groups): the last axis stays long
        peaks = groups.max(axis=1)
        query, group = _nonzero(peaks >= self.floor[:, None])
        if len(query) > CROWD * self.k * len(scores) and peaks.shape[1] > self.k:
            self._raise_floor(np.partition(peaks, -self.k, axis=1)[:, -self.k])  # k rows reach the k-th peak
            query, group = _nonzero(peaks >= self.floor[:, None])
        members = groups[query, :, group]  # (hits, members)
        hit, member = np.nonzero(members >= self.floor[query, None])
        row = ids[member * groups.shape[2] + group[hit]]
        self.pairs.append(Pairs(query[hit], row, members[hit, member]))
        if sum(len(pairs.query) for pairs in self.pairs) >= self.settled + self.k * len(scores):
            self._settle()

    def result(self) -> tuple[Ids, Scores]:
        """Return ids and scores, both (q, k), scored and ranked in the one exact way."""
        self._settle()
        best = self._exactly(self.pairs[0])
        return best.row.reshape(-1, self.k), best.score.reshape(-1, self.k)

    def _settle(self) -> None:
        """Raise the floor to the k-th best product of each query and drop what lies below."""
        pairs = Pairs.joined(self.pairs)
        order = np.lexsort((-pairs.score, pairs.query))
        kth = order[places(pairs.query[order]) == self.k - 1]
        lowest = np.full(len(self.queries), LEAST, np.float32)
        lowest[pairs.query[kth]] = pairs.score[kth]
        self._raise_floor(lowest)
        pairs = pairs.take(pairs.score >= self.floor[pairs.query])
        if len(pairs.query) > CROWD * self.k * len(self.queries):  # many equal rows: only exact scores part them
            pairs = self._exactly(pairs)
        self.pairs, self.settled = [pairs], len(pairs.query)

    def _exactly(self, pairs: Pairs) -> Pairs:
        scores = pair_scores(self.queries, self.rows, query=pairs.query, row=pairs.row)
        return Pairs(pairs.query, pairs.row, scores).best(self.k)

    def _raise_floor(self, kth: Scores) -> None:
        np.maximum(self.floor, kth - self.margin, out=self.floor)


def _nonzero(matrix: Mask) -> tuple[Ids, Ids]:
    """Return what numpy.nonzero does, in any order: several times as fast in one dimension, in the order of memory."""
    if matrix.flags.c_contiguous:
        rows, columns = np.divmod(np.flatnonzero(matrix), matrix.shape[1])
    else:
        columns, rows = np.divmod(np.flatnonzero(matrix.T), matrix.shape[0])
    return rows, columns


def _fold(width: int, k: int) -> int:
    """How many scores to put under one maximum: few enough to leave 4k groups, or all are candidates."""
    fold = GROUP
    while fold > 1 and width // fold < CROWD * k:
        fold //= 2
    return fold


def _checked_allowed(allowed: Ids, rows: int) -> Ids:
    """Refuse what is not a sorted set of row numbers: a double would be answered twice."""
    allowed = np.asarray(allowed)
    if allowed.ndim != 1 or (len(allowed) and allowed.dtype.kind not in "iu"):
        raise SpecError(f"allowed is {allowed.dtype} {allowed.shape}: pass row numbers, (m,) integers")
    allowed = allowed.astype(np.int64, copy=False)
    if len(allowed) and (allowed[0] < 0 or allowed[-1] >= rows or np.any(allowed[1:] <= allowed[:-1])):
        raise SpecError(f"allowed row numbers must be sorted, without doubles, from 0 to {rows - 1}: use numpy.unique")
    return allowed
