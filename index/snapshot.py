"""Snapshot: the rows that one search sees, and how they are searched: by candidates, exactly, or by both."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from index.candidates import CandidateIndex
from index.errors import SpecError
from index.exact import ScoredPairs, bound_rounding, exact_search, filtered_search, score_pairs
from index.vectors import Ids, Mask, Neighbors, Rows, disable_readahead, find_distinct

Allowed: TypeAlias = Ids | Mask


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows and which of them are live, (slots,), and a candidate index of the first `covered` slots; immutable."""

    rows: Rows
    live: Mask
    count: int
    candidate_index: CandidateIndex | None
    covered: int

    def search(self, queries: Rows, k: int, effort: float) -> Neighbors:
        """Return the best live rows among the candidates and the rows that are not indexed yet."""
        wanted = min(k, self.count)
        if self.candidate_index is None or not len(queries) or not wanted:
            return filtered_search(queries, self.rows, k, mask=self.live)
        near, certain = self._score_candidates(self.candidate_index, queries, k=k, effort=effort)
        later = filtered_search(queries, self.rows[self.covered :], k, mask=self.live[self.covered :])
        best = ScoredPairs.concatenate([near, ScoredPairs.from_neighbors(later, offset=self.covered)]).top(wanted)
        counts = np.bincount(best.query, minlength=len(queries))
        return self._complete(queries, wanted, best, complete=certain & (counts == wanted))

    def search_allowed(self, queries: Rows, k: int, allowed: Allowed) -> Neighbors:
        """Return the best of the live rows that are allowed: exactly, because no candidate index can promise that."""
        selection = np.asarray(allowed)
        if selection.dtype == np.bool_:
            mask = self._intersect_live(selection.astype(np.bool_, copy=False))
            return filtered_search(queries, self.rows, k, mask=mask)
        ids = check_ids(selection, len(self.live))
        return exact_search(queries, self.rows, k, allowed=ids[self.live[ids]])

    def _intersect_live(self, mask: Mask) -> Mask:
        """Return the mask (slots,) of live rows in `mask`, which may have been made before the last slots."""
        if mask.ndim != 1 or len(mask) > len(self.live):
            raise SpecError(f"A mask {mask.shape} does not fit {len(self.live)} slots. Make it (slots,).")
        allowed = np.zeros_like(self.live)
        allowed[: len(mask)] = mask & self.live[: len(mask)]
        return allowed

    def _score_candidates(
        self, candidate_index: CandidateIndex, queries: Rows, *, k: int, effort: float
    ) -> tuple[ScoredPairs, Mask]:
        """Return the live candidates, scored, and the queries (q,) whose result is certain without an exact search."""
        indexed = len(candidate_index.slots)
        live = int(np.count_nonzero(self.live[: self.covered]))
        depth = min(indexed, -(-candidate_index.kind.depth(effort, k) * indexed // max(live, 1)))
        slots = candidate_index.candidates(queries, depth, effort)  # (q, depth)
        query, position = np.nonzero((slots >= 0) & (slots < self.covered))
        row = slots[query, position]
        with disable_readahead(self.rows):
            pairs = ScoredPairs(query, row, score_pairs(queries, self.rows, query=query, row=row))
        live_pairs = pairs.take(self.live[row])
        certain = np.ones(len(queries), np.bool_)
        if candidate_index.kind.scores_every_row(effort) and depth < indexed:
            certain = self._find_certain(pairs, live_pairs, queries=len(queries), k=k)
        return live_pairs, certain & (np.bincount(live_pairs.query, minlength=len(queries)) >= min(k, live))

    def _find_certain(self, pairs: ScoredPairs, live_pairs: ScoredPairs, *, queries: int, k: int) -> Mask:
        """Return the queries whose k-th score lies above every row that is no candidate, ties by rounding included."""
        lowest = np.full(queries, np.inf, np.float32)
        np.minimum.at(lowest, pairs.query, pairs.score)
        best = live_pairs.top(k)
        kth = np.full(queries, np.inf, np.float32)
        np.minimum.at(kth, best.query, best.score)
        return kth > lowest + 2 * bound_rounding(self.rows.shape[1])

    def _complete(self, queries: Rows, wanted: int, best: ScoredPairs, *, complete: Mask) -> Neighbors:
        """Take the queries that are `complete` (q,) from `best`, and search exactly for the others."""
        taken = best.take(complete[best.query])
        ids = np.empty((len(queries), wanted), np.int64)
        scores = np.empty((len(queries), wanted), np.float32)
        ids[complete], scores[complete] = taken.row.reshape(-1, wanted), taken.score.reshape(-1, wanted)
        if not complete.all():
            rest = filtered_search(queries[~complete], self.rows, wanted, mask=self.live)
            ids[~complete], scores[~complete] = rest.ids, rest.scores
        return Neighbors(ids, scores)


def check_ids(ids: NDArray[np.generic], slots: int) -> Ids:
    """Return ids as a sorted set; a SpecError if they are not integers from 0 to slots - 1."""
    ids = np.asarray(ids)
    if ids.size == 0:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise SpecError(f"Ids {ids.dtype} {ids.shape} are not slots. Pass integers, (m,).")
    unique = find_distinct(ids.astype(np.int64))
    if unique[0] < 0 or unique[-1] >= slots:
        raise SpecError(f"Ids from {unique[0]} to {unique[-1]} are not all slots. Slots go from 0 to {slots - 1}.")
    return unique
