"""Full-text search: BM25 over FTS5's table, spelling correction, exact search for identifiers.

Ranking: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, as FTS5 computes it
(k1 1.2, b 0.75, occurrences weighted by column), except for the weight of a term that n of N items have. FTS5 gives a
term of more than half of the items no weight: "women" in a shop mostly for women. Here it has Lucene's,
ln(1 + (N - n + 0.5) / (n + 0.5)), which is never zero.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.vectors import Mask
from retrieval.words.spelling import SpellingIndex, has_digit, select_corrections
from retrieval.words.store import ALL_ITEMS, COLUMN_WEIGHTS
from retrieval.words.tokens import QueryTerm, normalize_identifier, stem_plural, tokenize_query

MAX_SHARED = 50
"""The most items that may share an identifier; one that more items have identifies none of them."""

MAX_SCORED = 20_000
"""The most items scored for all parts of a query together, or for a single part: a microsecond each."""

_FLOOR = 1e-6  # FTS5's weight of a term that half of the items have
_MAX_COMMON_PARTS = 8
_MAX_CORRECTED_TERMS = 8
_MAX_TERMS = 64
_MAX_CHARACTERS = 4096
_MIN_IDENTIFIER_LENGTH = 3
_MIN_IDENTIFIER_DIGITS = 5  # shorter numbers are counts, sizes, years
_MAX_SINGLE_WORD_RUN = 4  # a run of so many characters is likely one word; longer runs are searched by bigrams too

_SCORES = (
    f"SELECT rowid, -bm25(words, {', '.join(map(str, COLUMN_WEIGHTS.values()))}) FROM words "  # noqa: S608 - constants
    "WHERE words MATCH ?1 AND (?2 IS NULL OR substr(?2, rowid + 1, 1) = x'01') LIMIT ?3"
)


class WordHit(NamedTuple):
    """An item that matches a query."""

    item: int  # its number
    score: float  # BM25, the higher the better
    # the fraction of the query's term weights that the item matches, in (0, 1]; a term that no item has weighs most
    coverage: float = 1.0


class QueryPart(NamedTuple):
    """An FTS5 expression for a part of the query, and its document frequency."""

    expression: str
    document_frequency: int


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores by item, each item once, and the summed weights of the terms that it has."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def add(cls, parts: Sequence["_Scores"]) -> "_Scores":
        """Return the sums over the parts."""
        items, place = np.unique(np.concatenate([part.items for part in parts]), return_inverse=True)
        scores = np.bincount(place, np.concatenate([part.scores for part in parts]), len(items))
        weights = np.bincount(place, np.concatenate([part.weights for part in parts]), len(items))
        return cls(items, scores.astype(np.float64), weights.astype(np.float64))

    def top(self, depth: int, *, query_weight: float) -> list[WordHit]:
        """Return the best hits, best first, ties by item number; `query_weight` is that of all terms of the query."""
        order = np.lexsort((self.items, -self.scores))[:depth]
        covered = np.minimum(self.weights[order] / query_weight, 1.0) if query_weight else np.ones(len(order))
        columns = (self.items[order], self.scores[order], covered)
        return [WordHit(*hit) for hit in zip(*(column.tolist() for column in columns), strict=True)]


_EMPTY = _Scores(np.empty(0, np.int64), np.empty(0), np.empty(0))


class _Scorer:
    """BM25 of one query, part by part: each part has its own weight, and none scores more items than the limit."""

    def __init__(self, connection: sqlite3.Connection, parts: Sequence[QueryPart], *, limit: int) -> None:
        totals = accumulate(part.document_frequency for part in parts)
        rare = max(1, sum(total <= limit for total in totals))
        self._rare, self._common = parts[:rare], parts[rare : rare + _MAX_COMMON_PARTS]
        self._connection = connection
        self._limit = limit
        self._item_count = _document_frequencies(connection, [ALL_ITEMS]).get(ALL_ITEMS, 0)

    def score(self, allowed: Mask | None, *, depth: int) -> _Scores:
        """Score the items that match a part, at least `depth` of them where as many match."""
        found = self._add(_EMPTY, self._rare, allowed)
        if not self._common:
            return found
        possible = self._all_items() if allowed is None else allowed
        known = np.zeros_like(possible)
        known[found.items] = True
        found = self._add(found, self._common, known)
        return found if len(found.items) >= depth else self._add(found, self._common, possible & ~known)

    def _all_items(self) -> Mask:
        last = self._connection.execute("SELECT max(number) FROM items").fetchone()[0]
        return np.ones(last + 1, np.bool_)

    def _add(self, found: _Scores, parts: Sequence[QueryPart], allowed: Mask | None) -> _Scores:
        mask = None if allowed is None else allowed.tobytes()
        return _Scores.add([found, *(self._score_part(part, mask) for part in parts)])

    def _score_part(self, part: QueryPart, mask: bytes | None) -> _Scores:
        """Score one part; SQLite gets the mask, so it computes nothing for the items that the mask excludes."""
        rows = self._connection.execute(_SCORES, (part.expression, mask, self._limit))
        read = np.fromiter(rows, np.dtype([("item", np.int64), ("score", np.float64)]))
        odds = self._odds(part.document_frequency)
        weight = math.log1p(odds)
        scores = read["score"] * weight / (math.log(odds) if odds > 1 else _FLOOR)
        return _Scores(np.ascontiguousarray(read["item"]), scores, np.full(len(read), weight))

    def weight(self, document_frequency: int) -> float:
        """Return the weight of a term of this document frequency."""
        return math.log1p(self._odds(document_frequency))

    def _odds(self, document_frequency: int) -> float:
        return (self._item_count - document_frequency + 0.5) / (document_frequency + 0.5)


class WordSearch:
    """Full-text search in one catalog. Threads may share it; each brings its own connection."""

    def __init__(self) -> None:
        self._spelling = SpellingIndex()

    def search(
        self, connection: sqlite3.Connection, text: str, *, depth: int, allowed: Mask | None = None
    ) -> list[WordHit]:
        """Return the `depth` items that match a text best, best first; ties by item number.

        An item matches that has any of the words. A run of characters of a script without spaces matches as a whole,
        a long one by its parts too. A word that no item has is replaced by the nearest words. Nothing in the text is
        syntax. Words after the 64th are ignored, and mistyped ones after the eighth.

        The scores are BM25 while the words match at most `MAX_SCORED` items together. Beyond that, the rarer words
        determine which items are found, and eight of the others only add to their scores; of a single word that matches
        more items, the first ones by number are ranked. There are always `depth` hits where as many items match.

        Args:
            connection: In a read transaction.
            text: Any text.
            depth: The most items to return.
            allowed: By item number, the items to search; all where None. From the same transaction.
        """
        known, unknown = _parse(connection, text)
        parts = self._with_corrections(connection, known, unknown)
        scorer = _Scorer(connection, parts, limit=max(depth, MAX_SCORED))
        weight = sum(scorer.weight(part.document_frequency) for part in dict.fromkeys(known))
        return scorer.score(allowed, depth=depth).top(depth, query_weight=weight + len(unknown) * scorer.weight(0))

    def find_matching(self, connection: sqlite3.Connection, text: str) -> NDArray[np.int64]:
        """Return the numbers of all items that have any of the words that `search` looks for, however many."""
        parts = self._with_corrections(connection, *_parse(connection, text))
        if not parts:
            return _EMPTY.items
        expression = " OR ".join(part.expression for part in parts)
        rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,))
        return np.fromiter((item for (item,) in rows), np.int64)

    def _with_corrections(
        self, connection: sqlite3.Connection, known: Sequence[QueryPart], unknown: Sequence[QueryTerm]
    ) -> list[QueryPart]:
        """Return all parts, rarest first; codes that no item has are corrected only where nothing else is left."""
        words = [term for term in unknown if not has_digit(term.surface)]
        parts = [*known, *self._correct(connection, words)] or self._correct(connection, unknown)
        return sorted(dict.fromkeys(parts), key=lambda part: part.document_frequency)[:_MAX_TERMS]

    def _correct(self, connection: sqlite3.Connection, terms: Sequence[QueryTerm]) -> list[QueryPart]:
        """Return the nearest words of mistyped ones, each taken as it is and as a plural."""
        parts: list[QueryPart] = []
        for term in terms[:_MAX_CORRECTED_TERMS]:
            forms = dict.fromkeys([term.surface, *term.tokens, stem_plural(term.surface.removesuffix("s"))])
            suggestions = [self._spelling.suggest(word, connection) for word in forms]
            merged = [list(chain(*words)) for words in zip_longest(*suggestions, fillvalue=())]
            frequencies = _document_frequencies(connection, {word for words in merged for word in words})
            parts += [QueryPart(f'"{word}"', frequencies[word]) for word in select_corrections(merged, frequencies)]
        return parts

    def find_identified(
        self, connection: sqlite3.Connection, text: str, *, allowed: Mask | None = None, limit: int = MAX_SHARED
    ) -> list[int]:
        """Return the items that a text names by an identifier: the whole text, or one of its words.

        Identifiers are ids and values of attributes such as SKUs and barcodes. Case, width and punctuation do not
        count. An identifier that more than `MAX_SHARED` items have identifies none of them. A word among others needs
        three characters, one of digits alone five; one without digits must occur in no other items.

        Returns:
            At most `limit` item numbers: those of the whole text, then of each word in turn; among these the ones
            spelled as in the text first, then by number.
        """
        text = text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode().strip()
        found: dict[int, None] = {}
        for spelling in dict.fromkeys([text, *text.split()[:_MAX_TERMS]]):
            items = _items_with_identifier(connection, spelling)
            if spelling == text or _is_distinctive(connection, spelling, len(items)):
                found |= dict.fromkeys(items)
        return [item for item in found if allowed is None or allowed[item]][:limit]


def _items_with_identifier(connection: sqlite3.Connection, spelling: str) -> list[int]:
    """Return the items that have this identifier, or none where they are many."""
    sql = "SELECT min(spelled <> ?), item FROM identifiers WHERE key = ? GROUP BY item LIMIT ?"
    rows = connection.execute(sql, (spelling, normalize_identifier(spelling), MAX_SHARED + 1)).fetchall()
    return [item for _, item in sorted(rows)] if len(rows) <= MAX_SHARED else []


def _is_distinctive(connection: sqlite3.Connection, spelling: str, identified: int) -> bool:
    """Whether a word among others is meant as an identifier: MH01 is, the 2 of "2 shirts" and the word shirts are not.

    Args:
        connection: In a read transaction.
        spelling: The word.
        identified: The number of items that have it as an identifier.
    """
    key = normalize_identifier(spelling)
    if not identified or len(key) < (_MIN_IDENTIFIER_DIGITS if key.isdecimal() else _MIN_IDENTIFIER_LENGTH):
        return False
    token = stem_plural(key)
    frequency = _document_frequencies(connection, [token]).get(token, 0)
    return frequency <= (MAX_SHARED if has_digit(key) else identified)


def _parse(connection: sqlite3.Connection, text: str) -> tuple[list[QueryPart], list[QueryTerm]]:
    """Return the parts of a text that items have, and the terms that none has."""
    terms = tokenize_query(text[:_MAX_CHARACTERS])[:_MAX_TERMS]
    frequencies = _document_frequencies(connection, {token for term in terms for token in term.tokens})
    unknown = [term for term in terms if len(term.surface) > 1 and not frequencies.keys() & term.tokens]
    known = (_term_parts(connection, term, frequencies) for term in terms if term not in unknown)
    return list(chain.from_iterable(known)), unknown


def _document_frequencies(connection: sqlite3.Connection, tokens: Iterable[str]) -> dict[str, int]:
    sql = "SELECT word, items FROM vocabulary WHERE word IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(sql, (json.dumps(list(tokens)),)))


def _expression_part(connection: sqlite3.Connection, expression: str) -> list[QueryPart]:
    """Return the expression, or nothing where no item matches it."""
    count = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (expression,)).fetchone()[0]
    return [QueryPart(expression, count)] if count else []


def _term_parts(connection: sqlite3.Connection, term: QueryTerm, frequencies: dict[str, int]) -> list[QueryPart]:
    """Return the parts of a term: a token, a prefix, or a run as a phrase and, if long or no phrase, its bigrams."""
    if term.is_prefix:
        return _expression_part(connection, f'"{term.tokens[0]}"*')
    # No token contains a quotation mark.
    tokens = [QueryPart(f'"{token}"', frequencies[token]) for token in term.tokens if token in frequencies]
    if len(term.tokens) == 1 or len(tokens) < len(term.tokens):
        return tokens
    phrase = _expression_part(connection, f'"{" ".join(term.tokens)}"')
    return phrase if phrase and len(term.surface) <= _MAX_SINGLE_WORD_RUN else [*phrase, *tokens]
