"""One request answered: candidates by vectors and words, then boosts, order, groups, a page, totals and facets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Final

import numpy as np

from index.vectors import Ids, Mask, Rows, find_distinct, unit_rows
from retrieval.catalog.ranking import Ranking, SearchScope
from retrieval.catalog.search.hits import read_hits
from retrieval.catalog.search.item_fusion import DEFAULT_CAPTION_WEIGHT, fuse_sides
from retrieval.catalog.search.query_vectors import QueryVectors
from retrieval.catalog.search.rank_fusion import FusedRanking, fuse_words_and_vectors, rank_by_words
from retrieval.catalog.search.request import ResolvedRequest
from retrieval.catalog.search.reranking import apply_boosts, collapse_groups, count_group_items, sort_by_attributes
from retrieval.catalog.side import Sides
from retrieval.errors import QueryError
from retrieval.filters.column_store import ColumnStore
from retrieval.filters.facets import Facet, count_facet, find_spelling
from retrieval.filters.values import Scalar
from retrieval.query import mix
from retrieval.records import Records
from retrieval.types import Hits, SideName, Target
from retrieval.words.search import WordHit, WordSearch

WINDOW: Final = 1000
"""Number of best candidates, or offset + k where that is more, that boosts, groups and fusion rerank."""

SORT_WINDOW: Final = 100
"""Number of best candidates that are sorted where a query is given: the cheapest of all items may have nothing to do
with it. With a floor, or without a query, everything is sorted."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A catalog at the moment of its records: its sides, its attributes and its words."""

    records: Records
    sides: Sides
    column_store: ColumnStore
    words: WordSearch


class Search:
    """One request against a catalog of one moment."""

    def __init__(self, snapshot: Snapshot, resolved: ResolvedRequest, vectors: QueryVectors) -> None:
        """Look up what has to be known before anything is searched.

        Raises:
            QueryError: there is no such item, or the parts cancel each other.
        """
        request, target = resolved.request, resolved.target
        self.effort = request.effort
        self.batched: dict[SideName, Ranking] = {}  # the first `depth` of a side that was searched for many at once
        self._request = request
        self._mode = resolved.mode
        self._target: Target = target
        self._records = snapshot.records
        self._sides = snapshot.sides
        self._columns = snapshot.column_store
        self._words = snapshot.words
        self._side = snapshot.sides["captions" if target == "captions" else "images"]
        self._has_more_by_words = False  # whether more items may have the words than were ranked
        self._fused: FusedRanking | None = None
        self._start = perf_counter()
        self._exclude = self._find_excluded()
        self._allowed: Mask | None = None
        if request.condition is not None:
            self._allowed = self._columns.mask(request.condition, self._records.connection)
        self.vector = self._mix_vectors(vectors)

    @property
    def depth(self) -> int:
        """Number of candidates to begin with."""
        request = self._request
        end = request.offset + request.k
        if self._sorts_best:
            return max(SORT_WINDOW, end)
        reranks = request.group or request.parsed_boosts or self._mode != "vectors" or self._target == "items"
        return max(WINDOW, end) if reranks else end

    @property
    def batched_sides(self) -> tuple[SideName, ...]:
        """The sides on which another search of the same depth has the same candidates for the same vector."""
        if not self._uses_vectors or self._allowed is not None or self._exclude is not None:
            return ()
        return ("images", "captions") if self._target == "items" else (self._target,)

    def find_hits(self) -> Hits:
        """Search, and read the records of the page of hits."""
        end, depth = self._request.offset + self._request.k, self.depth
        while True:
            found = self._find_candidates(depth)
            if self._sorts_best:  # words and vectors together may be more
                found = found.take(slice(depth))
            ranking = self._rerank(found)
            if len(ranking) >= end or len(found) < depth:
                break
            depth *= 4
        searched = perf_counter()
        page = ranking.take(slice(self._request.offset, end))
        hits = Hits(
            read_hits(
                self._records,
                page,
                self._target,
                offset=self._request.offset,
                ranks={} if self._fused is None else self._fused.ranks_of(page.item),
                variants=self._count_variants(page, found),
            ),
            total=self._count_total(found),
            facets=self._count_facets(found),
        )
        hits.seconds = {"search": searched - self._start, "records": perf_counter() - searched}
        return hits

    @property
    def _sorts_best(self) -> bool:
        """Whether only the best candidates are sorted, not all that pass the filter or the floor."""
        return bool(self._request.sort_keys) and self._request.query is not None and self._request.floor is None

    # --- the query

    @property
    def _uses_vectors(self) -> bool:
        return self._request.query is not None and self._mode != "words"

    def _find_excluded(self) -> int | None:
        """Return the number of the item to search with, which is not among its own hits."""
        like = None if self._request.query is None else self._request.query.like
        if like is None:
            return None
        numbers = self._records.numbers_of([like])
        if like not in numbers:
            raise QueryError(f"There is no item {like!r} in this catalog.")
        return numbers[like]

    def _mix_vectors(self, vectors: QueryVectors) -> Rows:
        query = self._request.query
        if query is None or not self._uses_vectors:
            return np.empty((0, 0), np.float32)
        if self._records.meta("dimension") is None:  # there are no vectors to compare with, and maybe no encoder
            return np.zeros((1, 1), np.float32)
        if self._exclude is not None:
            # The side's rows: a compaction may have removed the file that the records name.
            item = self._records.items_by_number([self._exclude])[self._exclude]
            slots = [image.slot for image in item.images]
            rows = self._sides["images"].rows[slots].astype(np.float64)
            vectors = {**vectors, "like": unit_rows(rows.mean(axis=0, keepdims=True))}
        return mix(query, vectors)

    # --- candidates

    def _find_candidates(self, depth: int) -> Ranking:
        request = self._request
        if request.query is None:
            return self._browse()
        if self._mode == "vectors":
            return self._search_vectors(depth)
        named, by_words = self._search_words(depth)
        self._has_more_by_words = len(by_words) >= depth
        if self._mode == "words":
            return rank_by_words(named, by_words)
        ranking, self._fused = fuse_words_and_vectors(
            named, by_words, self._search_vectors(depth), word_weight=request.word_weight
        )
        return ranking

    def _browse(self) -> Ranking:
        """Return every item, or text, that passes the filter."""
        if self._target == "captions":
            return self._side.all_captions(self._candidate_mask)
        items = np.flatnonzero(self._candidate_mask)
        return Ranking(items, np.zeros(len(items), np.int64), np.ones(len(items)))

    def _search_words(self, depth: int) -> tuple[list[int], list[WordHit]]:
        """Return the items whose identifier is in the text, and those that have its words."""
        connection, text = self._records.connection, self._request.text or ""
        allowed = self._allowed if self._exclude is None else self._candidate_mask
        named = self._words.find_identified(connection, text, allowed=allowed)
        return named, self._words.search(connection, text, depth=depth, allowed=allowed)

    def _search_vectors(self, depth: int) -> Ranking:
        floor = self._request.floor
        found = self._search_side(self._target, depth) if self._target != "items" else self._search_items(depth)
        return found if floor is None else found.take(found.score >= floor)

    def _search_items(self, depth: int) -> Ranking:
        weight = self._request.caption_weight
        if weight is None:
            weight = float(self._records.meta("caption_weight", DEFAULT_CAPTION_WEIGHT))
        candidates = [self._search_side(side, depth) for side in self._sides]
        items = fuse_sides(
            self._sides, self.vector, candidates=candidates, fusion=self._request.fusion, caption_weight=weight
        )
        return items.take(slice(depth)) if self._request.floor is None else items

    def _search_side(self, name: SideName, depth: int) -> Ranking:
        """Return the best `depth` of a side, with a floor all above it: what is below it on both sides is so fused."""
        scope, floor = SearchScope(self._allowed, self._exclude, self.effort), self._request.floor
        side = self._sides[name]
        is_batched = name in self.batched and depth == self.depth
        found = self.batched[name] if is_batched else side.search(self.vector, depth, scope)
        while floor is not None and len(found) >= depth and found.score[-1] >= floor:
            depth *= 4
            found = side.search(self.vector, depth, scope)
        return found

    # --- order

    def _rerank(self, found: Ranking) -> Ranking:
        request = self._request
        if not (request.parsed_boosts or request.sort_keys or request.group):
            return found
        with self._columns.snapshot(self._records.connection) as columns:
            if request.parsed_boosts:
                found = apply_boosts(found, request.parsed_boosts, columns)
            if request.sort_keys:
                found = sort_by_attributes(found, request.sort_keys, columns)
            return found if request.group is None else collapse_groups(found, columns.column(request.group))

    # --- counts

    def _count_variants(self, page: Ranking, found: Ranking) -> Sequence[int | None]:
        if self._request.group is None:
            return [None] * len(page)
        mask = self._make_count_mask(found)
        with self._columns.snapshot(self._records.connection) as columns:
            return count_group_items(page.item, columns.column(self._request.group), mask)

    def _count_total(self, found: Ranking) -> int:
        if self._counts_found:
            return len(found if self._target == "captions" else self._collect_found_items(found))
        return self._side.count(self._allowed if self._exclude is None else self._candidate_mask)

    def _count_facets(self, found: Ranking) -> Mapping[str, Facet]:
        if not self._request.facet_requests:
            return {}
        mask = self._make_count_mask(found)
        with self._columns.snapshot(self._records.connection) as columns:
            return {
                spec.key: count_facet(columns.column(spec.key), mask, spec, spelling=self._make_spelling(spec.key))
                for spec in self._request.facet_requests
            }

    def _make_spelling(self, key: str) -> Callable[[Scalar, int], Scalar]:
        return lambda value, item: find_spelling(self._records.attributes_of(item), key, value)

    @property
    def _counts_found(self) -> bool:
        """Whether totals, facets and groups count what was found, instead of all that passes the filter."""
        return self._mode == "words" or self._request.floor is not None

    def _make_count_mask(self, found: Ranking) -> Mask:
        """Return which items, by number, are counted in facets and groups."""
        if not self._counts_found:
            return self._side.items_with_entries(self._candidate_mask)
        mask = np.zeros(len(self._candidate_mask), np.bool_)
        mask[self._collect_found_items(found)] = True
        return mask

    def _collect_found_items(self, found: Ranking) -> Ids:
        """Return the items that were found, with those that have the words but were not ranked."""
        if not self._has_more_by_words:
            return found.item
        return find_distinct(np.concatenate([self._items_with_words, found.item]))

    @cached_property
    def _items_with_words(self) -> Ids:
        items = self._words.find_matching(self._records.connection, self._request.text or "")
        return items[self._candidate_mask[items]]

    @cached_property
    def _candidate_mask(self) -> Mask:
        """Which items, by number, pass the filter and are not excluded."""
        if self._allowed is None:
            with self._columns.snapshot(self._records.connection) as columns:
                mask = columns.live.copy()
        else:
            mask = self._allowed.copy()
        if self._exclude is not None:
            mask[self._exclude] = False
        return mask
