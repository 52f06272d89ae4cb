"""Retrieval metrics as pure functions of ranks, with several relevant targets and with ties.

Targets are ordered by score. Targets of equal score have no order, so every metric is its expectation over a random
order of the tied: an encoder that gives every input the same vector scores exactly the random baseline, whatever the
order of the rows. Scores are float32 inner products; equal target rows always tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import EvaluationError
from retrieval.metrics.ties import miss_probability, precision_sum, reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.float32]

KS = (1, 5, 10)  # the default cut-offs of recall
BLOCK_BYTES = 16 << 20  # scores held at once; a smaller block starves the matrix product, a larger one leaves the cache


@dataclass(frozen=True, slots=True)
class Relevance:
    """The relevant targets of each query as a sparse matrix in CSR form.

    Those of query `q` are `ids[offsets[q]:offsets[q + 1]]`, sorted and unique.
    """

    offsets: Ids  # (q + 1,), from 0 to the number of relevant (query, target) pairs
    ids: Ids  # (p,) target numbers, in `[0, targets)`
    targets: int  # the number of targets, relevant to some query or not

    @classmethod
    def from_pairs(
        cls, query_of_pair: ArrayLike, target_of_pair: ArrayLike, *, queries: int, targets: int
    ) -> Relevance:
        """Return the relevance of these (query, target) pairs; repeated pairs count once.

        Raises:
            EvaluationError: A number lies outside `[0, queries)` or `[0, targets)`.
        """
        query, target = np.asarray(query_of_pair, np.int64), np.asarray(target_of_pair, np.int64)
        for name, numbers, count in (("query", query, queries), ("target", target, targets)):
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
                bounds = f"{numbers.min()} to {numbers.max()}"
                raise EvaluationError(f"A {name} number lies outside 0 to {count - 1}: {bounds}.")
        keys = np.unique(query * targets + target)
        return cls(np.searchsorted(keys, np.arange(queries + 1) * targets), keys % max(targets, 1), targets)

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def answers(self) -> Ids:
        """Number of relevant targets of each query, (q,)."""
        return np.diff(self.offsets)

    def query_of_pair(self) -> Ids:
        """Return the query that each of `ids` is relevant to, (p,)."""
        return np.repeat(np.arange(self.queries), self.answers)

    def transpose(self) -> Relevance:
        """Return the same pairs with targets as queries."""
        return Relevance.from_pairs(self.ids, self.query_of_pair(), queries=self.targets, targets=self.queries)

    def compose(self, other: Relevance) -> Relevance:
        """Return the targets that each query reaches through its own targets, which are the queries of `other`."""
        query = np.repeat(self.query_of_pair(), other.answers[self.ids])
        return Relevance.from_pairs(query, other.take(self.ids).ids, queries=self.queries, targets=other.targets)

    def take(self, queries: Ids) -> Relevance:
        """Return the relevance of these queries, in this order; a query may be taken several times."""
        counts = self.answers[queries]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[queries] - offsets[:-1], counts)
        return Relevance(offsets, self.ids[places], self.targets)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of the relevant targets of each query, all of shape (q,).

    The best relevant target of a query shares its score with `tied` targets, itself included, of which `right` are
    relevant; `better` targets score higher, none of them relevant.
    """

    better: Ids  # targets above the best relevant one
    tied: Ids  # targets of the same score as the best relevant one, itself included
    right: Ids  # the relevant ones among the tied
    answers: Ids  # all relevant targets
    # AP@R: with R relevant targets, the mean over the ranks i = 1..R of precision at i where the i-th target is
    # relevant and of 0 where it is not (Musgrave et al., A Metric Learning Reality Check)
    average_precision: Floats
    targets: int  # the number of ranked targets

    def random_baseline(self) -> Ranks:
        """Return the ranks of the same queries when all targets are in random order."""
        better = np.zeros_like(self.answers)
        tied = np.full_like(self.answers, self.targets)
        precision = precision_sum(better, tied, self.answers, before=better, answers=self.answers) / self.answers
        return Ranks(better, tied, self.answers, self.answers, precision, self.targets)

    def take(self, queries: Ids) -> Ranks:
        """Return the ranks of these queries, in this order; a query may be taken several times."""
        columns = (self.better, self.tied, self.right, self.answers)
        better, tied, right, answers = (column[queries] for column in columns)
        return Ranks(better, tied, right, answers, self.average_precision[queries], self.targets)

    def recall(self, k: int) -> Floats:
        """Return the probability that at least one relevant target is among the first `k`, (q,).

        The first `m = k - better` of `tied` targets in random order contain no relevant one with the hypergeometric
        probability C(tied - right, m) / C(tied, m).
        """
        return 1.0 - miss_probability(self.tied, self.right, np.clip(k - self.better, 0, self.tied))

    def first_rank(self) -> Floats:
        """Return the expected rank of the best relevant target, from 1, (q,).

        The first of `right` among `tied` in random order is at (tied + 1) / (right + 1) on average.
        """
        return self.better + (self.tied + 1) / (self.right + 1)

    def reciprocal_rank(self) -> Floats:
        """Return the expected reciprocal rank of the best relevant target, (q,)."""
        cases, case_of_query = np.unique(np.stack([self.better, self.tied, self.right]), axis=1, return_inverse=True)
        return reciprocal_rank(*cases)[case_of_query.reshape(-1)]


def rank(queries: Rows, targets: Rows, relevance: Relevance) -> Ranks:
    """Rank all targets for each query by inner product, with at most `BLOCK_BYTES` of scores in memory.

    Args:
        queries: (q, d) unit rows.
        targets: (n, d) unit rows.
        relevance: The relevant targets; each query needs at least one.

    Raises:
        EvaluationError: Shapes do not match, a value is not finite, or a query has no relevant target.
    """
    queries, targets = _validate_rows("query", queries), _validate_rows("target", targets)
    _validate_shapes(queries, targets, relevance)
    duplicates, originals = find_duplicate_rows(targets)
    blocks = list(_blocks(len(queries), 4 * len(targets)))
    scores = np.empty((blocks[0][1], len(targets)), np.float32)  # (b, n), reused for each block
    parts = []
    for start, stop in blocks:
        block = np.matmul(queries[start:stop], targets.T, out=scores[: stop - start])
        # The last bits of a product may depend on the position of its column: equal targets get one score.
        block[:, duplicates] = block[:, originals]
        parts.append(_rank_block(block, relevance.take(np.arange(start, stop))))
    better, tied, right, precision = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ranks(better, tied, right, relevance.answers, precision, relevance.targets)


def _rank_block(scores: Rows, relevance: Relevance) -> tuple[Ids, Ids, Ids, Floats]:
    """Return `better`, `tied`, `right` and `average_precision` of a block of scores, which is sorted in place."""
    row = np.repeat(np.arange(len(scores)), relevance.answers)
    value = scores[row, relevance.ids]
    scores.sort(axis=1)
    upto, below = (_count(scores, row, value, compare=compare) for compare in (np.less_equal, np.less))
    better, tied = scores.shape[1] - upto, upto - below
    order = np.lexsort((better, row))
    row, better, tied = row[order], better[order], tied[order]
    # A run of relevant targets of one score is a group of ties; the first group of each query is its best.
    start = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(better, prepend=-1))
    right = np.diff(start, append=len(row))
    row, better, tied = row[start], better[start], tied[start]
    before = start - relevance.offsets[row]
    precision = precision_sum(better, tied, right, before=before, answers=relevance.answers[row])
    best = before == 0
    sums = np.bincount(row, weights=precision, minlength=len(scores))
    return better[best], tied[best], right[best], sums / relevance.answers


def find_duplicate_rows(rows: Rows) -> tuple[Ids, Ids]:
    """Return the numbers of the rows that repeat an earlier one, and of the first row that each of them repeats."""
    weights = np.random.default_rng(0).integers(0, 2**63, size=rows.shape[1], dtype=np.uint64)
    keys = np.empty(len(rows), np.uint64)
    for start, stop in _blocks(len(rows), 16 * rows.shape[1]):
        bits = (rows[start:stop] + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
        keys[start:stop] = bits.astype(np.uint64) @ weights
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    originals = first[group]
    duplicates = np.flatnonzero(originals != np.arange(len(rows)))
    same = [
        (rows[duplicates[a:b]] == rows[originals[duplicates[a:b]]]).all(axis=1)
        for a, b in _blocks(len(duplicates), 16 * rows.shape[1])
    ]
    duplicates = duplicates[np.concatenate([*same, np.empty(0, bool)])]  # two keys may collide
    return duplicates, originals[duplicates]


def _count(ordered: Rows, row: Ids, value: Rows, *, compare: np.ufunc) -> Ids:
    """Count the entries of `ordered[row[i]]`, ascending, for which `compare(entry, value[i])` holds, by bisection."""
    low, high = np.zeros_like(row), np.full_like(row, ordered.shape[1])
    for _ in range(ordered.shape[1].bit_length()):
        middle = (low + high) // 2
        entry = ordered[row, np.minimum(middle, ordered.shape[1] - 1)]
        passes = compare(entry, value) & (low < high)
        low, high = np.where(passes, middle + 1, low), np.where(passes, high, middle)
    return low


def _blocks(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Return the bounds of blocks of `BLOCK_BYTES`, each of at least one row."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return ((start, min(start + step, count)) for start in range(0, count, step))


def _validate_rows(name: str, rows: Rows) -> Rows:
    rows = np.ascontiguousarray(rows, np.float32)
    if rows.ndim != 2:  # noqa: PLR2004 - a matrix
        raise EvaluationError(f"{name.capitalize()} rows must be a matrix (n, d), not of shape {rows.shape}.")
    if any(not np.isfinite(rows[start:stop]).all() for start, stop in _blocks(len(rows), 4 * rows.shape[1])):
        raise EvaluationError(f"A {name} vector contains NaN or infinity: the encoder that made it is broken.")
    return rows


def _validate_shapes(queries: Rows, targets: Rows, relevance: Relevance) -> None:
    if queries.shape[1] != targets.shape[1]:
        raise EvaluationError(
            f"Queries have dimension {queries.shape[1]}, targets {targets.shape[1]}. Embed both with one encoder."
        )
    if (relevance.queries, relevance.targets) != (len(queries), len(targets)):
        raise EvaluationError(
            f"The relevance is of {relevance.queries} queries and {relevance.targets} targets, "
            f"the rows are {len(queries)} and {len(targets)}."
        )
    if not len(queries) or not relevance.answers.all():
        raise EvaluationError("Every query needs a relevant target. Leave out the queries without one.")
