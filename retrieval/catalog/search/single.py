"""One request answered: candidates by vectors and words, then boosts, order, groups, a page, and what is counted."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from index.vectors import Ids, Mask, Rows
from retrieval.catalog.ranking import Ranking, SearchScope
from retrieval.catalog.search.hits import read_hits
from retrieval.catalog.search.hybrid import first_named, hybrid, ranks_of
from retrieval.catalog.search.item_fusion import CAPTION_WEIGHT, Fusing, fused
from retrieval.catalog.search.query_vectors import Encoded
from retrieval.catalog.search.request import Request
from retrieval.catalog.search.reranking import apply_boosts, group_sizes, keep_best_of_groups, sort_by_attributes
from retrieval.catalog.side import Side
from retrieval.errors import QueryError
from retrieval.filters.column_store import ColumnStore
from retrieval.filters.columns import Columns
from retrieval.filters.facets import Facet, count_facet, find_spelling
from retrieval.filters.values import Scalar
from retrieval.query import Query, mean_row, mix
from retrieval.records import Records
from retrieval.types import Hits, SideName, Target
from retrieval.words.search import WordHit, WordSearch

if TYPE_CHECKING:
    from retrieval.catalog.search.rank_fusion import Fused

WINDOW: Final = 1000
"""So many of the best are what boosts, groups and fusion put into another order; or offset + k, where that is more."""

SORTED: Final = 100
"""So many of the best are sorted, where something is looked for: the cheapest of all there is would have nothing to do
with it. A floor, or no query, sorts everything."""

Sides: TypeAlias = Mapping[SideName, Side]


class Search:
    """One request against records of one moment."""

    def __init__(
        self,
        request: Request,
        rows: Encoded,
        target: Target,
        *,
        sides: Sides,
        records: Records,
        column_store: ColumnStore,
        words: WordSearch,
    ) -> None:
        """Look up what has to be known before anything is searched.

        Raises:
            QueryError: there is no such item, or the parts cancel each other.
        """
        self.request = request
        self.target = target
        self.side = sides["captions" if target == "captions" else "images"]
        self.known: dict[SideName, Ranking] = {}  # the first `depth` of a side, where it was searched for many at once
        self._sides = sides
        self._records = records
        self._column_store = column_store
        self._words = words
        self._without: int | None = None
        self._is_cut = False  # whether there may be more items with the words than were ranked
        self._parts: Fused | None = None  # the ranks in each part of a hybrid search
        self._start = perf_counter()
        self._mask: Mask | None = None
        if request.condition is not None:
            self._mask = column_store.mask(request.condition, records.connection)
        self.row = self._row(request.query, rows)

    @property
    def depth(self) -> int:
        """How many candidates to begin with."""
        request = self.request
        needed = request.offset + request.k
        if self._sorts_best:
            return max(SORTED, needed)
        plain = request.mode == "vectors" and self.target != "items"
        return needed if plain and not (request.group or request.boosts) else max(WINDOW, needed)

    @property
    def _sorts_best(self) -> bool:
        """Whether the best are sorted, and not all that pass the filter or the floor."""
        request = self.request
        return bool(request.sort) and request.query is not None and request.floor is None

    @property
    def shared(self) -> tuple[SideName, ...]:
        """The sides whose first `depth` by vector are those of a search that others may share."""
        if not self._asks_vectors or self._mask is not None or self._without is not None:
            return ()
        return ("images", "captions") if self.target == "items" else (self.target,)

    def hits(self) -> Hits:
        """Search, and read the records of what is shown."""
        request, needed = self.request, self.request.offset + self.request.k
        depth = self.depth
        while True:
            found = self._candidates(depth)
            if self._sorts_best:  # words and vectors together are more
                found = found.take(slice(depth))
            ranked = self._ordered(found)
            if len(ranked) >= needed or len(found) < depth:
                break
            depth *= 4
        searched = perf_counter()
        shown = ranked.take(slice(request.offset, needed))
        hits = Hits(
            read_hits(
                self._records,
                shown,
                self.target,
                after=request.offset,
                ranks={} if self._parts is None else ranks_of(self._parts, shown.item),
                variants=self._variants(shown, found),
            ),
            total=self._total(found),
            facets=self._facets(found),
        )
        hits.seconds = {"search": searched - self._start, "records": perf_counter() - searched}
        return hits

    # --- candidates

    @property
    def _asks_vectors(self) -> bool:
        return self.request.query is not None and self.request.mode != "words"

    def _row(self, query: Query | None, rows: Encoded) -> Rows:
        if query is None or not self._asks_vectors:
            return np.empty((0, 0), np.float32)
        if query.like is not None:
            number, row = _item_row(self._records, self._sides["images"], query.like)
            self._without, rows = number, {**rows, "like": row}
        if self._records.meta("dimension") is None:  # there are no vectors to compare with, and maybe no encoder
            return np.zeros((1, 1), np.float32)
        return mix(query, rows)

    def _candidates(self, depth: int) -> Ranking:
        request = self.request
        if request.query is None:
            return self._everything()
        if request.words is None:
            return self._by_vector(depth)
        named, worded = self._by_words(request.words, depth)
        self._is_cut = len(worded) >= depth
        if request.mode == "words":
            return first_named(named, worded)
        ranked, self._parts = hybrid(named, worded, self._by_vector(depth), weight=request.word_weight)
        return ranked

    def _everything(self) -> Ranking:
        """Every item, or text, that the filter lets through fits a request that asks for nothing in particular."""
        if self.target == "captions":
            return self.side.all_captions(self._items())
        items = np.flatnonzero(self._items())
        return Ranking(items, np.zeros(len(items), np.int64), np.ones(len(items)))

    def _by_words(self, text: str, depth: int) -> tuple[list[int], list[WordHit]]:
        """The items that the text names, and those that have its words."""
        connection, without = self._records.connection, self._without
        mask = self._mask
        if without is not None:
            mask = self._items().copy()
            mask[without] = False
        named = self._words.find_identified(connection, text, allowed=mask)
        return named, self._words.search(connection, text, depth=depth, allowed=mask)

    def _by_vector(self, depth: int) -> Ranking:
        floor = self.request.floor
        found = self._nearest(depth)
        return found if floor is None else found.take(found.score >= floor)

    def _nearest(self, depth: int) -> Ranking:
        if self.target != "items":
            return self._of_side(self.target, depth)
        weight = self.request.caption_weight
        if weight is None:
            weight = float(self._records.meta("caption_weight", CAPTION_WEIGHT))
        found = [self._of_side(side, depth) for side in self._sides]
        items = fused(self._sides, self.row, among=found, fusing=Fusing(self.request.fusion, weight))
        return items.take(slice(depth)) if self.request.floor is None else items

    def _of_side(self, side: SideName, depth: int) -> Ranking:
        """The first `depth` of a side; with a floor all above it: what is below it on both sides is so when fused."""
        if side in self.known and depth == self.depth:
            found = self.known[side]
        else:
            found = self._sides[side].search(self.row, depth, self._among)
        floor = self.request.floor
        while floor is not None and len(found) >= depth and found.score[-1] >= floor:
            depth *= 4
            found = self._sides[side].search(self.row, depth, self._among)
        return found

    @property
    def _among(self) -> SearchScope:
        return SearchScope(self._mask, self._without, self.request.effort)

    # --- order

    def _ordered(self, found: Ranking) -> Ranking:
        request = self.request
        if not (request.boosts or request.sort or request.group):
            return found
        with self._column_store.snapshot(self._records.connection) as columns:
            if request.boosts:
                found = apply_boosts(found, request.boosts, columns)
            if request.sort:
                found = sort_by_attributes(found, request.sort, columns)
            return found if request.group is None else keep_best_of_groups(found, columns.column(request.group))

    def _variants(self, shown: Ranking, found: Ranking) -> Sequence[int | None]:
        if self.request.group is None:
            return [None] * len(shown)
        with self._column_store.snapshot(self._records.connection) as columns:
            return group_sizes(shown.item, columns.column(self.request.group), self._counted(found, columns))

    # --- counts

    def _total(self, found: Ranking) -> int:
        if self._counts_found:
            return len(found if self.target == "captions" else self._found_items(found))
        if self._without is None:
            return self.side.count(self._mask)
        mask = self._items().copy()
        mask[self._without] = False
        return self.side.count(mask)

    @property
    def _counts_found(self) -> bool:
        """Whether only what was found counts, and not all that passes the filter."""
        return self.request.mode == "words" or self.request.floor is not None

    def _found_items(self, found: Ranking) -> Ids:
        """The items that were found, also those that have the words but come after the ones that were ranked."""
        return np.union1d(self._having, found.item) if self._is_cut else found.item

    @cached_property
    def _having(self) -> Ids:
        """All items that have the words and pass the filter: totals, facets and groups ask for them."""
        having = self._words.find_matching(self._records.connection, self.request.words or "")
        if self._mask is not None:
            having = having[self._mask[having]]
        return having if self._without is None else having[having != self._without]

    def _items(self) -> Mask:
        if self._mask is not None:
            return self._mask
        with self._column_store.snapshot(self._records.connection) as columns:
            return columns.live.copy()

    def _counted(self, found: Ranking, columns: Columns) -> Mask:
        """The items, by number, that totals and facets are about."""
        if self._counts_found:
            mask = np.zeros(len(columns.live), np.bool_)
            mask[self._found_items(found)] = True
            return mask
        mask = (columns.live if self._mask is None else self._mask).copy()
        if self._without is not None:
            mask[self._without] = False
        return self.side.items_with_entries(mask)

    def _facets(self, found: Ranking) -> Mapping[str, Facet]:
        if not self.request.facets:
            return {}
        with self._column_store.snapshot(self._records.connection) as columns:
            mask = self._counted(found, columns)
            return {
                wanted.key: count_facet(columns.column(wanted.key), mask, wanted, spelling=self._spelling(wanted.key))
                for wanted in self.request.facets
            }

    def _spelling(self, key: str) -> Callable[[Scalar, int], Scalar]:
        return lambda value, item: find_spelling(self._records.attributes_of(item), key, value)


def _item_row(records: Records, side: Side, name: str) -> tuple[int, Rows]:
    """An item's number and what it looks like: the direction between its pictures' vectors, (1, d).

    The rows are those that `side` holds: a compaction may have taken away the file that the records name.
    """
    numbers = records.numbers_of([name])
    if name not in numbers:
        raise QueryError(f"There is no item {name!r} in this catalog.")
    return numbers[name], mean_row(np.array(side.rows[records.slots.image_slots(numbers[name])]))
