"""Many requests answered together, in one read transaction; texts share a forward pass, requests an index search."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.query_vectors import Failure, QueryVectors, attempt, encode_queries
from retrieval.catalog.search.request import ResolvedRequest, SearchRequest
from retrieval.catalog.search.single import Search, Snapshot
from retrieval.catalog.side import Sides, read_sides
from retrieval.errors import QueryError
from retrieval.filters.column_store import ColumnStore
from retrieval.filters.values import short_repr
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.state import VectorSpace
from retrieval.types import Hits, SideName
from retrieval.words.search import WordSearch


class Searcher:
    """Answers searches of one open catalog, from any thread."""

    def __init__(self, database: Database, encoder: CatalogEncoder, sides: Sides) -> None:
        self._database = database
        self._encoder = encoder
        self._sides = sides
        self._columns = ColumnStore()
        self._words = WordSearch()

    def search_each(self, requests: Sequence[SearchRequest]) -> list[Hits | Failure]:
        """Return the hits of each request, or the error that it fails with.

        Raises:
            QueryError: one is no SearchRequest.
        """
        for request in requests:
            if not isinstance(request, SearchRequest):
                raise QueryError(f"search_many takes SearchRequests, not {short_repr(request)}.")
        while True:
            start = perf_counter()
            space = self._encoder.space
            vectors = encode_queries(self._encoder, requests, dimension=space.dimension)
            seconds = perf_counter() - start
            results = self._search_snapshot(requests, vectors, space=space)
            if results is not None:
                for hits in results:
                    if isinstance(hits, Hits):
                        hits.seconds = {"encode": seconds, **hits.seconds}
                return results

    def _search_snapshot(
        self, requests: Sequence[SearchRequest], vectors: Sequence[QueryVectors | Failure], *, space: VectorSpace
    ) -> list[Hits | Failure] | None:
        """Return the hits, or errors; None where the catalog is not of the space that the vectors were encoded for."""

        def sides_needed(records: Records) -> set[SideName]:
            return {side for one in _resolve(requests, records) for side in one.sides}

        with read_sides(self._database, self._sides.values(), sides_needed) as records:
            current = records.state().space
            if current != space:
                self._encoder.update(current)
                return None
            for side in sides_needed(records):
                self._sides[side].update_index(self._database)
            snapshot = Snapshot(records, self._sides, self._columns, self._words)
            searches = [
                attempt(Search, snapshot, request, own) if isinstance(own, dict) else own
                for request, own in zip(_resolve(requests, records), vectors, strict=True)
            ]
            self._search_together([search for search in searches if isinstance(search, Search)])
            return [attempt(search.find_hits) if isinstance(search, Search) else search for search in searches]

    def _search_together(self, searches: Sequence[Search]) -> None:
        """Search a side once for all requests that search it in the same way."""
        groups: dict[Any, list[Search]] = {}
        for search in searches:
            for side in search.batched_sides:
                groups.setdefault((side, search.depth, search.effort), []).append(search)
        for (side, depth, effort), group in groups.items():
            if len(group) > 1:
                vectors = np.concatenate([search.vector for search in group])
                rankings = self._sides[side].search_many(vectors, depth, effort=effort)
                for search, ranking in zip(group, rankings, strict=True):
                    search.batched[side] = ranking


def _resolve(requests: Sequence[SearchRequest], records: Records) -> list[ResolvedRequest]:
    has_captions = records.has_captions()
    has_words = has_captions or records.has_attributes()
    return [request.resolve(has_captions=has_captions, has_words=has_words) for request in requests]
