"""Many requests answered together: what can be done for all of them at once is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.query_vectors import FAILURES, Encoded, Failure, encoded
from retrieval.catalog.search.request import Request
from retrieval.catalog.search.single import Search, Sides
from retrieval.catalog.side import read_sides
from retrieval.errors import QueryError
from retrieval.filters.column_store import ColumnStore
from retrieval.filters.values import short_repr
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.state import VectorSpace
from retrieval.types import Hits, Target
from retrieval.words.search import WordSearch


class Searcher:
    """Answers searches of one open catalog, from any thread."""

    def __init__(self, database: Database, encoder: CatalogEncoder, sides: Sides) -> None:
        self._database = database
        self._encoder = encoder
        self._sides = sides
        self._column_store = ColumnStore()
        self._words = WordSearch()

    def search_each(self, requests: Sequence[Request]) -> list[Hits | Failure]:
        """Return the hits of each request, or why there are none; what can be done for many at once is.

        Raises:
            QueryError: one is no request.
        """
        for request in requests:
            if not isinstance(request, Request):
                raise QueryError(f"a request is what make_request returns, not {short_repr(request)}")
        while True:
            start = perf_counter()
            space = self._encoder.space
            rows = encoded(self._encoder, requests, dimension=space.dimension)
            seconds = perf_counter() - start
            answers = self._answers(requests, rows, space=space)
            if answers is not None:
                for answer in answers:
                    if isinstance(answer, Hits):
                        answer.seconds = {"encode": seconds, **answer.seconds}
                return answers

    def _answers(
        self, requests: Sequence[Request], rows: Sequence[Encoded | Failure], *, space: VectorSpace
    ) -> list[Hits | Failure] | None:
        """Return the answers; None where the catalog is no longer of the vector space that `rows` were encoded for."""
        answers: dict[int, Hits | Failure] = {}
        targets = [self._target(request) for request in requests]
        for target in dict.fromkeys(targets):
            places = [place for place, one in enumerate(targets) if one == target]
            with self._reading(self._needed(target, [requests[place] for place in places])) as records:
                state = records.state()
                if state.space != space:
                    self._encoder.update(state.space)
                    return None
                searches = {
                    place: self._search(requests[place], rows[place], target=target, records=records)
                    for place in places
                }
                self._search_together([one for one in searches.values() if isinstance(one, Search)])
                answers |= {place: _answer(search) for place, search in searches.items()}
        return [answers[place] for place in range(len(requests))]

    def _target(self, request: Request) -> Target:
        if request.target is not None:
            return request.target
        if request.mode != "vectors":
            return "items"
        if request.query is None or not request.query.is_image_alone:
            return "images"
        with self._database.reading() as records:
            return "captions" if records.has_captions() else "images"

    @staticmethod
    def _needed(target: Target, requests: Sequence[Request]) -> Target:
        """Return whose sides these requests need: an item that is searched with has pictures, whatever is ranked."""
        likes = any(request.query is not None and request.query.like is not None for request in requests)
        return "items" if target == "captions" and likes else target

    @contextmanager
    def _reading(self, target: Target) -> Iterator[Records]:
        """Give records of one moment, as of which the sides are that this target needs."""
        sides = list(self._sides.values()) if target == "items" else [self._sides[target]]
        with read_sides(self._database, sides) as records:
            for side in sides:
                side.update_index(self._database)
            yield records

    def _search(
        self, request: Request, rows: Encoded | Failure, *, target: Target, records: Records
    ) -> Search | Failure:
        if not isinstance(rows, dict):
            return rows
        try:
            return Search(
                request,
                rows,
                target,
                sides=self._sides,
                records=records,
                column_store=self._column_store,
                words=self._words,
            )
        except FAILURES as error:
            return error

    def _search_together(self, searches: Sequence[Search]) -> None:
        """Search an index once for all that ask it alike."""
        alike: dict[Any, list[Search]] = {}
        for search in searches:
            for side in search.shared:
                alike.setdefault((side, search.depth, search.request.effort), []).append(search)
        for (side, depth, effort), group in alike.items():
            if len(group) > 1:
                queries = np.concatenate([search.row for search in group])
                found = self._sides[side].search_many(queries, depth, effort=effort)
                for search, ranked in zip(group, found, strict=True):
                    search.known[side] = ranked


def _answer(search: Search | Failure) -> Hits | Failure:
    try:
        return search.hits() if isinstance(search, Search) else search
    except FAILURES as error:
        return error
