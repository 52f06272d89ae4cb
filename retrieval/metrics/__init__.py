"""Retrieval metrics as pure functions of ranks, with several right answers and ties taken by expectation.

A query's targets are ordered by score. Targets of equal score come in no order, so every figure here is its expectation
over a random order of the tied: an encoder that gives every input the same vector scores exactly chance, not what the
order of the rows happens to be. Scores are float32 inner products; equal target rows always tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.errors import EvaluationError
from retrieval.metrics.ties import miss_probability, precision_sum, reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.float32]

KS = (1, 5, 10)  # what recall is taken at wherever nothing else is asked
BLOCK_BYTES = 16 << 20  # scores held at once; a smaller block starves the matrix product, a larger one leaves the cache


@dataclass(frozen=True, slots=True)
class Relevance:
    """The right targets of each query: those of query `q` are `ids[offsets[q]:offsets[q + 1]]`, sorted, each once.

    Attributes:
        offsets: (q + 1,), from 0 to the number of right (query, target) pairs.
        ids: target numbers, in `[0, targets)`.
        targets: how many targets there are, right for some query or not.
    """

    offsets: Ids
    ids: Ids
    targets: int

    @classmethod
    def from_pairs(
        cls, query_of_pair: ArrayLike, target_of_pair: ArrayLike, *, queries: int, targets: int
    ) -> Relevance:
        """The relevance that these (query, target) pairs state; a pair said twice counts once.

        Raises:
            EvaluationError: when a number lies outside `[0, queries)` or `[0, targets)`.
        """
        query, target = np.asarray(query_of_pair, np.int64), np.asarray(target_of_pair, np.int64)
        _check_numbers("query", query, queries)
        _check_numbers("target", target, targets)
        keys = np.unique(query * targets + target)
        return cls(np.searchsorted(keys, np.arange(queries + 1) * targets), keys % max(targets, 1), targets)

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return len(self.offsets) - 1

    @property
    def answers(self) -> Ids:
        """How many right targets each query has, (q,)."""
        return np.diff(self.offsets)

    def query_of_pair(self) -> Ids:
        """The query that each of `ids` is right for, (p,)."""
        return np.repeat(np.arange(self.queries), self.answers)

    def transpose(self) -> Relevance:
        """The same pairs asked the other way: targets become queries."""
        return Relevance.from_pairs(self.ids, self.query_of_pair(), queries=self.targets, targets=self.queries)

    def compose(self, further: Relevance) -> Relevance:
        """What each query reaches through its targets, which are the queries of `further`."""
        reached = np.repeat(self.query_of_pair(), further.answers[self.ids])
        return Relevance.from_pairs(reached, further.take(self.ids).ids, queries=self.queries, targets=further.targets)

    def take(self, queries: Ids) -> Relevance:
        """The relevance of these queries alone, in this order; one may be taken several times."""
        counts = self.answers[queries]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[queries] - offsets[:-1], counts)
        return Relevance(offsets, self.ids[places], self.targets)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the right targets of each query came, all of shape (q,).

    The best right target of a query shares its score with `tied` targets, itself included, of which `right` are right;
    `better` targets score higher, all of them wrong.

    Attributes:
        better: targets above the best right one.
        tied: targets of the same score as the best right one, itself included.
        right: how many of the tied are right.
        answers: right targets in all.
        average_precision: AP@R: with R right targets in all, the mean over the ranks i = 1..R of precision at i where
            the i-th target is right and of 0 where it is wrong (Musgrave et al., A Metric Learning Reality Check).
        targets: how many targets were ranked.
    """

    better: Ids
    tied: Ids
    right: Ids
    answers: Ids
    average_precision: Floats
    targets: int

    @classmethod
    def from_random_order(cls, answers: Ids, targets: int) -> Ranks:
        """The ranks of queries with so many right answers when the order of all targets is random."""
        better = np.zeros_like(answers)
        tied = np.full_like(answers, targets)
        precision = precision_sum(better, tied, answers, before=better, answers=answers) / answers
        return cls(better, tied, answers, answers, precision, targets)

    def random_baseline(self) -> Ranks:
        """What the same queries would score if the targets came in random order."""
        return Ranks.from_random_order(self.answers, self.targets)

    def take(self, queries: Ids) -> Ranks:
        """The ranks of these queries, in this order; one may be taken several times."""
        chosen = (self.better, self.tied, self.right, self.answers)
        better, tied, right, answers = (values[queries] for values in chosen)
        return Ranks(better, tied, right, answers, self.average_precision[queries], self.targets)

    def recall(self, k: int) -> Floats:
        """The probability that at least one right target is among the first `k`, (q,).

        The first `m = k - better` of `tied` targets in random order are taken: they miss all right ones with the
        hypergeometric probability C(tied - right, m) / C(tied, m).
        """
        taken = np.clip(k - self.better, 0, self.tied)
        return 1.0 - miss_probability(self.tied, self.right, taken)

    def first_rank(self) -> Floats:
        """The expected rank of the best right target, from 1, (q,).

        The first of `right` among `tied` in random order stands at (tied + 1) / (right + 1) on average.
        """
        return self.better + (self.tied + 1) / (self.right + 1)

    def reciprocal_rank(self) -> Floats:
        """The expected reciprocal of the rank of the best right target, (q,)."""
        cases, case_of_query = np.unique(np.stack([self.better, self.tied, self.right]), axis=1, return_inverse=True)
        return reciprocal_rank(*cases)[case_of_query.reshape(-1)]


def rank(queries: Rows, targets: Rows, right: Relevance) -> Ranks:
    """Rank all targets for each query by inner product, in blocks: never more than `BLOCK_BYTES` of scores at once.

    Args:
        queries: (q, d) unit rows.
        targets: (n, d) unit rows.
        right: which targets are right; each query needs at least one.

    Raises:
        EvaluationError: when shapes do not fit, a value is not finite, or a query has no right target.
    """
    queries, targets = _checked("query", queries), _checked("target", targets)
    _check_fit(queries, targets, right)
    copies, originals = find_duplicate_rows(targets)
    blocks = list(_blocks(len(queries), 4 * len(targets)))
    scores = np.empty((blocks[0][1], len(targets)), np.float32)  # (b, n), used again for each block
    parts = []
    for start, stop in blocks:
        block = np.matmul(queries[start:stop], targets.T, out=scores[: stop - start])
        # The last bits of a product may depend on the column's place in it: equal targets get one score.
        block[:, copies] = block[:, originals]
        parts.append(_rank_block(block, right.take(np.arange(start, stop))))
    better, tied, size, precision = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ranks(better, tied, size, right.answers, precision, right.targets)


def _rank_block(scores: Rows, right: Relevance) -> tuple[Ids, Ids, Ids, Floats]:
    """`better`, `tied`, `right` and `average_precision` for a block of scores, which is sorted in place."""
    row = np.repeat(np.arange(len(scores)), right.answers)
    value = scores[row, right.ids]
    scores.sort(axis=1)
    upto, below = (_count(scores, row, value, compare=compare) for compare in (np.less_equal, np.less))
    better, tied = scores.shape[1] - upto, upto - below
    order = np.lexsort((better, row))
    row, better, tied = row[order], better[order], tied[order]
    # A run of right targets with one score is a group of ties; the first of each query is its best.
    start = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(better, prepend=-1))
    size = np.diff(start, append=len(row))
    row, better, tied = row[start], better[start], tied[start]
    before = start - right.offsets[row]
    precision = precision_sum(better, tied, size, before=before, answers=right.answers[row])
    best = before == 0
    sums = np.bincount(row, weights=precision, minlength=len(scores))
    return better[best], tied[best], size[best], sums / right.answers


def recall_from_rows(
    image_rows: Rows, text_rows: Rows, image_of_text: ArrayLike, *, ks: Sequence[int] = KS
) -> dict[str, float]:
    """Recall@K both ways as fractions: `text_to_image_recall@1`, `image_to_text_recall@1`..., and their `mean_recall`.

    Args:
        image_rows: (n, d) unit rows.
        text_rows: (t, d) unit rows.
        image_of_text: (t,) the number of the image that each text belongs to. Images without a text are targets only.
        ks: the cut-offs.
    """
    texts = np.arange(len(text_rows))
    right = Relevance.from_pairs(texts, image_of_text, queries=len(text_rows), targets=len(image_rows))
    return recall_both_ways(image_rows, text_rows, right, ks=ks)


def recall_both_ways(
    image_rows: Rows, text_rows: Rows, right: Relevance, *, ks: Sequence[int] = KS
) -> dict[str, float]:
    """`recall_from_rows` for any relevance: texts are the queries of `right`, images its targets."""
    back = right.transpose()
    asked = np.flatnonzero(back.answers)
    ways = {
        "text_to_image": rank(text_rows, image_rows, right),
        "image_to_text": rank(take_rows(image_rows, asked), text_rows, back.take(asked)),
    }
    figures = {f"{way}_recall@{k}": float(ranks.recall(k).mean()) for way, ranks in ways.items() for k in ks}
    return figures | {"mean_recall": sum(figures.values()) / len(figures)}


def find_duplicate_rows(rows: Rows) -> tuple[Ids, Ids]:
    """The rows that repeat an earlier one, and the first row that each of them repeats: two lists of row numbers."""
    weights = np.random.default_rng(0).integers(0, 2**63, size=rows.shape[1], dtype=np.uint64)
    keys = np.empty(len(rows), np.uint64)
    for start, stop in _blocks(len(rows), 16 * rows.shape[1]):
        bits = (rows[start:stop] + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
        keys[start:stop] = bits.astype(np.uint64) @ weights
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    originals = first[group]
    copies = np.flatnonzero(originals != np.arange(len(rows)))
    same = [
        (rows[copies[a:b]] == rows[originals[copies[a:b]]]).all(axis=1)
        for a, b in _blocks(len(copies), 16 * rows.shape[1])
    ]
    copies = copies[np.concatenate([*same, np.empty(0, bool)])]  # two keys may collide
    return copies, originals[copies]


def _count(ordered: Rows, row: Ids, value: Rows, *, compare: np.ufunc) -> Ids:
    """For how many entries of `ordered[row[i]]`, ascending, `compare(entry, value[i])` holds, by bisection."""
    low, high = np.zeros_like(row), np.full_like(row, ordered.shape[1])
    for _ in range(ordered.shape[1].bit_length()):
        middle = (low + high) // 2
        entry = ordered[row, np.minimum(middle, ordered.shape[1] - 1)]
        passes = compare(entry, value) & (low < high)
        low, high = np.where(passes, middle + 1, low), np.where(passes, high, middle)
    return low


def _blocks(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """The bounds of blocks of rows of `BLOCK_BYTES`, at least a row each."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return ((start, min(start + step, count)) for start in range(0, count, step))


def take_rows(rows: Rows, chosen: Ids) -> Rows:
    """The chosen rows; no copy where all are."""
    return rows if len(chosen) == len(rows) else rows[chosen]


def _checked(what: str, rows: Rows) -> Rows:
    rows = np.ascontiguousarray(rows, np.float32)
    if rows.ndim != 2:  # noqa: PLR2004 - a matrix
        raise EvaluationError(f"{what} rows are a matrix (n, d), not of shape {rows.shape}.")
    if any(not np.isfinite(rows[start:stop]).all() for start, stop in _blocks(len(rows), 4 * rows.shape[1])):
        raise EvaluationError(f"A {what} vector holds a NaN or an infinity: the encoder that made it is broken.")
    return rows


def _check_fit(queries: Rows, targets: Rows, right: Relevance) -> None:
    if queries.shape[1] != targets.shape[1]:
        raise EvaluationError(
            f"Queries have dimension {queries.shape[1]}, targets {targets.shape[1]}: use one encoder."
        )
    if (right.queries, right.targets) != (len(queries), len(targets)):
        raise EvaluationError(
            f"The relevance is of {right.queries} queries and {right.targets} targets, "
            f"the rows are {len(queries)} and {len(targets)}."
        )
    if not len(queries) or not right.answers.all():
        raise EvaluationError("Every query needs a right answer: leave out those without, and have at least one.")


def _check_numbers(what: str, numbers: Ids, count: int) -> None:
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise EvaluationError(f"A {what} number lies outside 0 to {count - 1}: {numbers.min()} to {numbers.max()}.")
