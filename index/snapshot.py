"""Snapshot: what one search sees of an index, and how it is answered: by the structure, by reading rows, or by both."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from index.errors import SpecError
from index.exact import Pairs, exact_search, pair_scores, rounding, search_among
from index.structure import Structure
from index.vectors import Ids, Mask, Neighbors, Rows, no_readahead

Allowed: TypeAlias = Ids | Mask


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one search sees: rows and live (slots,), and the structure of the first `covered` slots. Never changed."""

    rows: Rows
    live: Mask
    count: int
    structure: Structure | None
    covered: int

    def search(self, queries: Rows, k: int, effort: float) -> Neighbors:
        """Return the best live rows: the structure's candidates and the rows after it, scored in the one way."""
        wanted = min(k, self.count)
        if self.structure is None or not len(queries) or not wanted:
            return search_among(queries, self.rows, k, mask=self.live)
        near, certain = self._near(self.structure, queries, k=k, effort=effort)
        later = search_among(queries, self.rows[self.covered :], k, mask=self.live[self.covered :])
        best = Pairs.joined([near, Pairs.of(later, first=self.covered)]).best(wanted)
        counts = np.bincount(best.query, minlength=len(queries))
        return self._completed(queries, wanted, best, whole=certain & (counts == wanted))

    def search_allowed(self, queries: Rows, k: int, allowed: Allowed) -> Neighbors:
        """Return the best of the live rows that are allowed: exactly, because no structure can promise that."""
        given = np.asarray(allowed)
        if given.dtype == np.bool_:
            return search_among(queries, self.rows, k, mask=self._living(given.astype(np.bool_, copy=False)))
        ids = checked_ids(given, len(self.live))
        return exact_search(queries, self.rows, k, allowed=ids[self.live[ids]])

    def _living(self, mask: Mask) -> Mask:
        """Return the mask (slots,) of what is live and in `mask`, which may have been made before the last slots."""
        if mask.ndim != 1 or len(mask) > len(self.live):
            raise SpecError(f"a mask {mask.shape} does not fit {len(self.live)} slots: make it (slots,)")
        living = np.zeros_like(self.live)
        living[: len(mask)] = mask & self.live[: len(mask)]
        return living

    def _near(self, structure: Structure, queries: Rows, *, k: int, effort: float) -> tuple[Pairs, Mask]:
        """Return the structure's live candidates, scored, and the queries (q,) that need no exact search besides."""
        known = len(structure.slots)
        alive = int(np.count_nonzero(self.live[: self.covered]))
        asked = min(known, -(-structure.spec.depth(effort, k) * known // max(alive, 1)))
        slots = structure.candidates(queries, asked, effort)  # (q, asked)
        query, place = np.nonzero((slots >= 0) & (slots < self.covered))
        row = slots[query, place]
        with no_readahead(self.rows):
            pairs = Pairs(query, row, pair_scores(queries, self.rows, query=query, row=row))
        living = pairs.take(self.live[row])
        certain = np.ones(len(queries), np.bool_)
        if structure.looks_everywhere(effort) and asked < known:
            certain = self._above_the_rest(pairs, living, queries=len(queries), k=k)
        return living, certain & (np.bincount(living.query, minlength=len(queries)) >= min(k, alive))

    def _above_the_rest(self, pairs: Pairs, living: Pairs, *, queries: int, k: int) -> Mask:
        """For which queries the k-th score lies above all that was not named: rounding may have hidden a tie."""
        lowest = np.full(queries, np.inf, np.float32)
        np.minimum.at(lowest, pairs.query, pairs.score)
        best = living.best(k)
        kth = np.full(queries, np.inf, np.float32)
        np.minimum.at(kth, best.query, best.score)
        return kth > lowest + 2 * rounding(self.rows.shape[1])

    def _completed(self, queries: Rows, wanted: int, best: Pairs, *, whole: Mask) -> Neighbors:
        """Take the queries that are `whole` (q,) from `best`, and search exactly for the others."""
        taken = best.take(whole[best.query])
        ids = np.empty((len(queries), wanted), np.int64)
        scores = np.empty((len(queries), wanted), np.float32)
        ids[whole], scores[whole] = taken.row.reshape(-1, wanted), taken.score.reshape(-1, wanted)
        if not whole.all():
            rest = search_among(queries[~whole], self.rows, wanted, mask=self.live)
            ids[~whole], scores[~whole] = rest.ids, rest.scores
        return Neighbors(ids, scores)


def checked_ids(ids: NDArray[np.generic], slots: int) -> Ids:
    """Return ids as a sorted set.

    Raises:
        SpecError: they are no integers from 0 to slots - 1.
    """
    given = np.asarray(ids)
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise SpecError(f"ids {given.dtype} {given.shape} are not slots: pass integers, (m,)")
    unique = np.unique(given)
    if unique[0] < 0 or unique[-1] >= slots:
        raise SpecError(f"ids from {unique[0]} to {unique[-1]} are not all slots: they go from 0 to {slots - 1}")
    return unique.astype(np.int64)
