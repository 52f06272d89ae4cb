"""Exact top-k by blocked matrix products: the oracle of the tests, and the way small and filtered searches run.

1. A float32 matrix product scores a panel of rows against a block of queries.
2. Rows whose product reaches the k-th best so far, less what rounding can move both by, stay as candidates.
3. The candidates are scored again in float64, in one fixed order of additions, rounded to float32 and ranked.

So a score depends on the two vectors only: not on the block, the BLAS library, the number of queries or the filter.
The ranking is that of the exact scores, equal rows have equal scores, and equal scores stand in id order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from index.errors import SpecError
from index.vectors import Ids, Mask, Neighbors, Rows, Scores, check_matrix

QUERY_BLOCK = 512
SCORE_BLOCK = 1 << 22  # scores at once: 16 MB; smaller blocks gain nothing, and each synchronises OpenBLAS's threads
SINGLE_BLOCK = 1 << 23  # numbers that single queries are multiplied with in turn: 32 MB, what a cache may hold
MANY_QUERIES = 256  # above it a matrix product by rows, in score blocks of 4 MB, is faster by a tenth
MANY_QUERIES_BLOCK = 1 << 20
GROUP = 16  # scores under one maximum
MAX_GROUPS = 4  # times k groups a query: with more, the k-th maximum of the panel is worth finding
BELOW_COSINES = np.float32(-2)
MASKED = np.float32(-4)  # added to a cosine leaves it below BELOW_COSINES
GATHER_BLOCK = 4096  # gathered rows at once
PAIR_BLOCK = 256  # pairs scored in float64 at once: 2 MB at 512 dimensions
COPY_COST = 4.5  # of a row, in readings of a row by one matrix-vector product


def exact_search(queries: Rows, rows: Rows, k: int, *, allowed: Ids | None = None) -> Neighbors:
    """Return the k rows of greatest cosine to each query, without error, among all rows or those in `allowed`.

    Args:
        queries: unit rows, (q, d).
        rows: unit rows, (n, d); a memory map is read once for each 512 queries.
        k: number of results; fewer come back where there are fewer rows.
        allowed: row numbers to search, sorted and without duplicates; all where None.

    Row numbers and cosines are both (q, min(k, allowed)), best first, equal scores by row number. A VectorError if they
    are not float32 matrices of one dimension; a SpecError for k below 1, or `allowed` unsorted or outside the rows.
    """
    rows = check_matrix(rows)
    queries = check_matrix(queries, dimension=rows.shape[1])
    check_k(k)
    if allowed is None:
        return search_blocks(queries, rows, k)
    allowed = _check_allowed(allowed, len(rows))
    if is_gathering_cheaper(len(queries), len(rows), len(allowed)):
        return search_blocks(queries, rows, k, ids=allowed)
    return search_blocks(queries, rows, k, mask=make_mask(allowed, len(rows)))


def filtered_search(queries: Rows, rows: Rows, k: int, *, mask: Mask) -> Neighbors:
    """Return what `exact_search` does for the rows of `mask` (n,), by the cheaper way."""
    allowed = int(np.count_nonzero(mask))
    if allowed == len(rows):
        return search_blocks(queries, rows, k)
    if is_gathering_cheaper(len(queries), len(rows), allowed):
        return search_blocks(queries, rows, k, ids=np.flatnonzero(mask))
    return search_blocks(queries, rows, k, mask=mask)


def make_mask(ids: Ids, count: int) -> Mask:
    """Return the mask (count,) that is true at `ids`."""
    mask = np.zeros(count, np.bool_)
    mask[ids] = True
    return mask


def is_gathering_cheaper(queries: int, rows: int, allowed: int) -> bool:
    """Whether copying the allowed rows together costs less than masking the scores of all rows.

    Measured at 100,000 x 512 they break even at 16 % allowed for one query, 43 % for 8, 69 % for 64, 86 % for 256;
    masking costs at most a tenth more than no filter, so neither way ever costs twice.
    """
    work = 1 + min(queries, QUERY_BLOCK) / 8
    return allowed * (COPY_COST + work) < rows * work


def score_pairs(queries: Rows, rows: Rows, *, query: Ids, row: Ids) -> Scores:
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
class ScoredPairs:
    """Scored pairs of a query and a row, flat: three arrays of one length."""

    query: Ids
    row: Ids
    score: Scores

    def top(self, k: int) -> "ScoredPairs":
        """Return the k best pairs of each query, in the order of queries, best first, equal scores in row order."""
        order = np.lexsort((self.row, -self.score, self.query))
        return self.take(order[_rank_within_query(self.query[order]) < k])

    @classmethod
    def from_neighbors(cls, neighbors: Neighbors, *, offset: int = 0) -> "ScoredPairs":
        """Return neighbors as pairs, in their order; `offset` is added to each id."""
        query = np.repeat(np.arange(len(neighbors.ids)), neighbors.ids.shape[1])
        return cls(query, neighbors.ids.ravel() + offset, neighbors.scores.ravel())

    @classmethod
    def concatenate(cls, parts: "Sequence[ScoredPairs]") -> "ScoredPairs":
        """Return the pairs of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def take(self, where: Ids | Mask) -> "ScoredPairs":
        """Return the pairs that numpy indexing selects."""
        return ScoredPairs(self.query[where], self.row[where], self.score[where])


def _rank_within_query(query: Ids) -> Ids:
    """Return the position of each entry in its run of equal queries, from 0; `query` is sorted."""
    counts = np.bincount(query)
    return np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)


def bound_rounding(dimension: int) -> float:
    """Return how far a float32 sum of the products of two unit rows, in any order, can be from the exact one.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; 2 more for our own rounding.
    """
    return (dimension + 2) * 2.0**-24 * 1.01


def check_k(k: int) -> None:
    """Refuse a number of results below 1."""
    if k < 1:
        raise SpecError(f"k is {k}. Ask for at least one result.")


def search_blocks(queries: Rows, rows: Rows, k: int, *, ids: Ids | None = None, mask: Mask | None = None) -> Neighbors:
    """Search the rows `ids` (sorted), copied together; or score every row and skip those outside `mask` (n,)."""
    k = min(k, len(rows) if ids is None else len(ids), len(rows) if mask is None else int(np.count_nonzero(mask)))
    neighbors = Neighbors(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    for start in range(0, len(queries) if k else 0, QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best = _TopK(block, rows, k)
        panels = _score_masked(block, rows, mask) if ids is None else _score_gathered(block, rows, ids)
        for scores, panel_ids in panels:
            best.update(scores, panel_ids)
        neighbors.ids[start : start + QUERY_BLOCK], neighbors.scores[start : start + QUERY_BLOCK] = best.rank()
    return neighbors


def _score_masked(queries: Rows, rows: Rows, mask: Mask | None) -> Iterator[tuple[Scores, Ids]]:
    """Yield the scores (q, w) of w rows at a time, below BELOW_COSINES outside the mask, with their ids (w,)."""
    block = MANY_QUERIES_BLOCK if len(queries) > MANY_QUERIES else SCORE_BLOCK
    width = _pad(min(len(rows), block // len(queries)))
    buffer = np.empty(len(queries) * width, np.float32)
    for start in range(0, len(rows), width):
        ids = np.arange(start, min(start + width, len(rows)))
        allowed = None if mask is None else mask[start : start + width]
        if allowed is not None and not allowed.any():
            continue
        scores = _multiply(queries, rows[start : start + width], buffer)
        if allowed is not None and not allowed.all():
            scores[:, : len(ids)] += MASKED * (1 - allowed.astype(np.float32))  # four times as fast as numpy.where
        yield scores, ids


def _score_gathered(queries: Rows, rows: Rows, ids: Ids) -> Iterator[tuple[Scores, Ids]]:
    """Yield the scores (q, w) of the rows `ids`, copied together w at a time, with their ids (w,)."""
    width = _pad(min(len(ids), GATHER_BLOCK))
    buffer = np.empty(len(queries) * width, np.float32)
    gathered = np.empty((width, rows.shape[1]), np.float32)
    for start in range(0, len(ids), width):
        part = ids[start : start + width]
        block = gathered[: len(part)]
        np.take(rows, part, axis=0, out=block, mode="clip")  # "raise" would copy once more
        yield _multiply(queries, block, buffer), part


@np.errstate(invalid="ignore")  # rows are finite, but a BLAS kernel may set the flag in lanes that it discards
def _multiply(queries: Rows, block: Rows, buffer: Scores) -> Scores:
    """Multiply into the buffer, (q, w), padded with MASKED columns to a whole number of groups."""
    width = _pad(len(block))
    flat = buffer[: len(queries) * width]
    if len(queries) > MANY_QUERIES:
        scores = flat.reshape(width, len(queries)).T
        np.matmul(block, queries.T, out=scores[:, : len(block)].T)
    elif len(queries) <= 2 + block.shape[1] // 256:  # measured from 32 to 1,024 dimensions
        scores = flat.reshape(len(queries), width)
        step = max(1, SINGLE_BLOCK // block.shape[1])
        for start in range(0, len(block), step):
            part = block[start : start + step]
            for query, out in zip(queries, scores, strict=True):  # spares BLAS packing: 3 take 9 ms, 16 at once
                np.dot(part, query, out=out[start : start + len(part)])
    else:
        scores = flat.reshape(len(queries), width)
        np.matmul(queries, block.T, out=scores[:, : len(block)])
    scores[:, len(block) :] = MASKED
    return scores


def _pad(width: int) -> int:
    return -(-width // GROUP) * GROUP


class _TopK:
    """The candidates for the k best rows of each query, from the panels seen so far.

    A row is a candidate where its product is at least `floor` (q,): the k-th best product so far, less what rounding
    may have moved both by. Few rows are, so most scores are read once, by a maximum over groups.
    """

    def __init__(self, queries: Rows, rows: Rows, k: int) -> None:
        self.queries, self.rows, self.k = queries, rows, k
        self.margin = 2 * bound_rounding(rows.shape[1])
        self.floor = np.full(len(queries), BELOW_COSINES, np.float32)
        self.pairs: list[ScoredPairs] = []
        self.pruned = 0

    def update(self, scores: Scores, ids: Ids) -> None:
        """Add the candidates of a panel: scores (q, w) and ids (w,), w a whole number of groups."""
        group_size = _choose_group_size(scores.shape[1], self.k)
        groups = scores.reshape(len(scores), group_size, -1)  # (q, members, groups): the last axis stays long
        maxima = groups.max(axis=1)
        query, group = _find_nonzero(maxima >= self.floor[:, None])
        if len(query) > MAX_GROUPS * self.k * len(scores) and maxima.shape[1] > self.k:
            kth = np.partition(maxima, -self.k, axis=1)[:, -self.k]  # k rows reach it
            np.maximum(self.floor, kth - self.margin, out=self.floor)
            query, group = _find_nonzero(maxima >= self.floor[:, None])
        members = groups[query, :, group]  # (hits, members)
        hit, member = np.nonzero(members >= self.floor[query, None])
        row = ids[member * groups.shape[2] + group[hit]]
        self.pairs.append(ScoredPairs(query[hit], row, members[hit, member]))
        if sum(len(pairs.query) for pairs in self.pairs) >= self.pruned + self.k * len(scores):
            self._prune()

    def rank(self) -> tuple[Ids, Scores]:
        """Return ids and exact scores, both (q, k)."""
        self._prune()
        best = self._rescore(self.pairs[0])
        return best.row.reshape(-1, self.k), best.score.reshape(-1, self.k)

    def _prune(self) -> None:
        """Raise the floor to the k-th best product of each query and drop what lies below."""
        pairs = ScoredPairs.concatenate(self.pairs)
        order = np.lexsort((-pairs.score, pairs.query))
        kth = order[_rank_within_query(pairs.query[order]) == self.k - 1]
        lowest = np.full(len(self.queries), BELOW_COSINES, np.float32)
        lowest[pairs.query[kth]] = pairs.score[kth]
        np.maximum(self.floor, lowest - self.margin, out=self.floor)
        pairs = pairs.take(pairs.score >= self.floor[pairs.query])
        if len(pairs.query) > MAX_GROUPS * self.k * len(self.queries):  # many equal rows: only exact scores decide
            pairs = self._rescore(pairs)
        self.pairs, self.pruned = [pairs], len(pairs.query)

    def _rescore(self, pairs: ScoredPairs) -> ScoredPairs:
        scores = score_pairs(self.queries, self.rows, query=pairs.query, row=pairs.row)
        return ScoredPairs(pairs.query, pairs.row, scores).top(self.k)


def _find_nonzero(matrix: Mask) -> tuple[Ids, Ids]:
    """Return what numpy.nonzero does, in any order: several times as fast in one dimension, in the order of memory."""
    if matrix.flags.c_contiguous:
        rows, columns = np.divmod(np.flatnonzero(matrix), matrix.shape[1])
    else:
        columns, rows = np.divmod(np.flatnonzero(matrix.T), matrix.shape[0])
    return rows, columns


def _choose_group_size(width: int, k: int) -> int:
    """Return how many scores to put under one maximum: few enough to leave 4k groups, or all are candidates."""
    size = GROUP
    while size > 1 and width // size < MAX_GROUPS * k:
        size //= 2
    return size


def _check_allowed(allowed: Ids, rows: int) -> Ids:
    """Refuse what is not a sorted set of row numbers: a duplicate would be returned twice."""
    allowed = np.asarray(allowed)
    if allowed.ndim != 1 or (len(allowed) and allowed.dtype.kind not in "iu"):
        raise SpecError(f"allowed is {allowed.dtype} {allowed.shape}. Pass row numbers, (m,) integers.")
    allowed = allowed.astype(np.int64, copy=False)
    if len(allowed) and (allowed[0] < 0 or allowed[-1] >= rows or np.any(allowed[1:] <= allowed[:-1])):
        raise SpecError(
            f"allowed is not sorted, without duplicates, from 0 to {rows - 1}. Pass it through numpy.unique."
        )
    return allowed
