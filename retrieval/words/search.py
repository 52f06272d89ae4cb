"""Search by words: BM25 over FTS5's table, mistyped words put right, identifiers found whole.

Source of the ranking: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, as FTS5
computes it (k1 1.2, b 0.75, occurrences weighted by column), but for the weight of a word that n of N items have. To
FTS5 a word of more than half of the items weighs nothing: "women" in a shop mostly for women. Here it is Lucene's,
ln(1 + (N - n + 0.5) / (n + 0.5)), which is never zero.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.vectors import Mask
from retrieval.words.spelling import Spelling, has_digit, nearest
from retrieval.words.store import EVERY, WEIGHTS
from retrieval.words.tokens import Term, identifier_key, query_terms, singular

SHARED = 50
"""Items that an identifier may have and still say which one is meant."""

MOST_SCORED = 20_000
"""Items that are scored at most for all parts of a query, or for its only one: a microsecond each."""

_FLOOR = 1e-6  # FTS5's weight of words that half of the items have
_MOST_COMMON = 8
_MOST_CORRECTED = 8
_MOST_TERMS = 64
_MOST_CHARACTERS = 4096
_TELLING_CHARACTERS = 3
_TELLING_DIGITS = 5  # shorter ones are counts, sizes, years
_WHOLE = 4  # characters of a run that are likely one word; of a longer one the pairs are looked for too

_SCORED = (
    f"SELECT rowid, -bm25(words, {', '.join(map(str, WEIGHTS.values()))}) FROM words "  # noqa: S608 - constants
    "WHERE words MATCH ?1 AND (?2 IS NULL OR substr(?2, rowid + 1, 1) = x'01') LIMIT ?3"
)


class Worded(NamedTuple):
    """An item that has words of the query.

    Attributes:
        item: Its number.
        score: The greater, the better.
        fit: How much of what the query says the item has, in (0, 1]: the weights of its words among those of all words,
            a word that no item has weighing most.
    """

    item: int
    score: float
    fit: float = 1.0


class Sought(NamedTuple):
    """A part of a query as FTS5 looks for it, and how many items have it."""

    expression: str
    items: int


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores by item, each item once; and the weights of the words that it has."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def total(cls, parts: Sequence["_Scores"]) -> "_Scores":
        """Return the sums over the parts."""
        items, place = np.unique(np.concatenate([part.items for part in parts]), return_inverse=True)
        scores = np.bincount(place, np.concatenate([part.scores for part in parts]), len(items))
        weights = np.bincount(place, np.concatenate([part.weights for part in parts]), len(items))
        return cls(items, scores.astype(np.float64), weights.astype(np.float64))

    def best(self, depth: int, *, whole: float) -> list[Worded]:
        """Return the best ones, best first, equal ones by item number; `whole` is the weight of all that was asked."""
        order = np.lexsort((self.items, -self.scores))[:depth]
        fits = np.minimum(self.weights[order] / whole, 1.0) if whole else np.ones(len(order))
        columns = (self.items[order], self.scores[order], fits)
        return [Worded(*one) for one in zip(*(column.tolist() for column in columns), strict=True)]


_NONE = _Scores(np.empty(0, np.int64), np.empty(0), np.empty(0))


class _Scorer:
    """The scores of one query: part by part, so that each has its weight and none costs more than it may."""

    def __init__(self, connection: sqlite3.Connection, sought: Sequence[Sought], *, limit: int) -> None:
        totals = accumulate(one.items for one in sought)
        cheap = max(1, sum(total <= limit for total in totals))
        self._finding, self._common = sought[:cheap], sought[cheap : cheap + _MOST_COMMON]
        self._connection = connection
        self._limit = limit
        self._all = _items_with(connection, [EVERY]).get(EVERY, 0)

    def scores(self, allowed: Mask | None, *, depth: int) -> _Scores:
        """Return the scores of the items that have a part, at least `depth` where there are as many."""
        found = self._sum(_NONE, self._finding, allowed)
        if not self._common:
            return found
        possible = self._every() if allowed is None else allowed
        known = np.zeros_like(possible)
        known[found.items] = True
        found = self._sum(found, self._common, known)
        return found if len(found.items) >= depth else self._sum(found, self._common, possible & ~known)

    def _every(self) -> Mask:
        last = self._connection.execute("SELECT max(number) FROM items").fetchone()[0]
        return np.ones(last + 1, np.bool_)

    def _sum(self, found: _Scores, parts: Sequence[Sought], allowed: Mask | None) -> _Scores:
        mask = None if allowed is None else allowed.tobytes()
        return _Scores.total([found, *(self._part(one, mask) for one in parts)])

    def _part(self, sought: Sought, mask: bytes | None) -> _Scores:
        """One part's share; the mask goes along, so that nothing is computed for items that it keeps out."""
        rows = self._connection.execute(_SCORED, (sought.expression, mask, self._limit))
        read = np.fromiter(rows, np.dtype([("item", np.int64), ("score", np.float64)]))
        odds = self._odds(sought.items)
        weight = math.log1p(odds)
        scores = read["score"] * weight / (math.log(odds) if odds > 1 else _FLOOR)
        return _Scores(np.ascontiguousarray(read["item"]), scores, np.full(len(read), weight))

    def weight(self, items: int) -> float:
        """Return the weight of a word that so many items have."""
        return math.log1p(self._odds(items))

    def _odds(self, items: int) -> float:
        return (self._all - items + 0.5) / (items + 0.5)


class WordSearch:
    """Search by words in one catalog; safe to share between threads that each bring their own connection."""

    def __init__(self) -> None:
        self._spelling = Spelling()

    def ranked(
        self, connection: sqlite3.Connection, text: str, *, depth: int, allowed: Mask | None = None
    ) -> list[Worded]:
        """Return the `depth` items whose words fit a text best, best first; equal scores by item number.

        An item fits that has any of the words; a run of characters of a script without spaces fits as a whole, and a
        long one by its parts too. A word that no item has is taken for those it is nearest to. Nothing in the text is
        syntax. Words beyond the 64th are left out, and mistyped ones beyond the eighth.

        The scores are those of BM25 while the words are in `MOST_SCORED` items together. Where they are in more, the
        rarer words say which items are found, and eight of the others only add to their scores; of a single word that
        more items have, the first ones by number are ranked. There are always `depth` items where so many have a word.

        Args:
            connection: As it is in a read transaction.
            text: Of any kind.
            depth: Most items to return.
            allowed: By item number, which may be found; all where None. Of the same transaction.
        """
        known, unknown = _looked_up(connection, text)
        sought = self._with_corrected(connection, known, unknown)
        scorer = _Scorer(connection, sought, limit=max(depth, MOST_SCORED))
        whole = sum(scorer.weight(one.items) for one in dict.fromkeys(known)) + len(unknown) * scorer.weight(0)
        return scorer.scores(allowed, depth=depth).best(depth, whole=whole)

    def having(self, connection: sqlite3.Connection, text: str) -> NDArray[np.int64]:
        """Return all items, by number, that have any of the words that `ranked` looks for, however many they are."""
        sought = self._with_corrected(connection, *_looked_up(connection, text))
        if not sought:
            return _NONE.items
        expression = " OR ".join(one.expression for one in sought)
        rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (expression,))
        return np.fromiter((item for (item,) in rows), np.int64)

    # --- what is looked for

    def _with_corrected(
        self, connection: sqlite3.Connection, known: Sequence[Sought], unknown: Sequence[Term]
    ) -> list[Sought]:
        """What the words stand for, rarest first; codes that nobody has for others only where there is nothing else."""
        sought = [*known, *self._corrected(connection, [term for term in unknown if not has_digit(term.typed)])]
        sought = sought or self._corrected(connection, unknown)
        return sorted(dict.fromkeys(sought), key=lambda one: one.items)[:_MOST_TERMS]

    def _corrected(self, connection: sqlite3.Connection, terms: Sequence[Term]) -> list[Sought]:
        found = (self._nearest(connection, term) for term in terms[:_MOST_CORRECTED])
        return list(chain.from_iterable(found))

    def _nearest(self, connection: sqlite3.Connection, term: Term) -> Iterator[Sought]:
        """The nearest words of a mistyped one, taken as it is and as a plural."""
        forms = dict.fromkeys([term.typed, *term.grams, singular(term.typed.removesuffix("s"))])
        spellings = [self._spelling.near(word, connection) for word in forms]
        candidates = [list(chain(*words)) for words in zip_longest(*spellings, fillvalue=())]
        counts = _items_with(connection, {word for words in candidates for word in words})
        yield from (_word(word, counts[word]) for word in nearest(candidates, counts))

    # --- identifiers

    def identified(
        self, connection: sqlite3.Connection, text: str, *, allowed: Mask | None = None, limit: int = SHARED
    ) -> list[int]:
        """Return the items that a text names by an identifier: the whole text, or one of its words.

        Identifiers are ids and values of attributes such as SKUs and barcodes. Case, width and punctuation do not
        count. What more than `SHARED` items have identifies none of them. A word among others has three characters, if
        only digits five; one without digits is in no items but those it identifies.

        Returns:
            At most `limit` item numbers: first those of the whole text, then of each word in turn; of these the ones
            that are spelled as in the text first, then by number.
        """
        text = text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode().strip()
        found: dict[int, None] = {}
        for spelled in dict.fromkeys([text, *text.split()[:_MOST_TERMS]]):
            items = _items_named(connection, spelled)
            if spelled == text or _is_telling(connection, spelled, len(items)):
                found |= dict.fromkeys(items)
        return [item for item in found if allowed is None or allowed[item]][:limit]


def _items_named(connection: sqlite3.Connection, spelled: str) -> list[int]:
    """The items that have this identifier, unless they are many."""
    sql = "SELECT min(spelled <> ?), item FROM identifiers WHERE key = ? GROUP BY item LIMIT ?"
    rows = connection.execute(sql, (spelled, identifier_key(spelled), SHARED + 1)).fetchall()
    return [item for _, item in sorted(rows)] if len(rows) <= SHARED else []


def _is_telling(connection: sqlite3.Connection, spelled: str, named: int) -> bool:
    """Whether a word among others is there for its items' sake: MH01 is, not the 2 of "2 shirts" or the word shirts."""
    key = identifier_key(spelled)
    if not named or len(key) < (_TELLING_DIGITS if key.isdecimal() else _TELLING_CHARACTERS):
        return False
    word = singular(key)
    items = _items_with(connection, [word]).get(word, 0)
    return items <= (SHARED if has_digit(key) else named)


# --- parts


def _looked_up(connection: sqlite3.Connection, text: str) -> tuple[list[Sought], list[Term]]:
    """Return the parts of a text that items have, and the words that none has."""
    terms = query_terms(text[:_MOST_CHARACTERS])[:_MOST_TERMS]
    counts = _items_with(connection, {gram for term in terms for gram in term.grams})
    unknown = [term for term in terms if len(term.typed) > 1 and not counts.keys() & term.grams]
    return [one for term in terms if term not in unknown for one in _known(connection, term, counts)], unknown


def _items_with(connection: sqlite3.Connection, words: Iterable[str]) -> dict[str, int]:
    sql = "SELECT word, items FROM vocabulary WHERE word IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(sql, (json.dumps(list(words)),)))


def _word(word: str, items: int) -> Sought:
    return Sought(f'"{word}"', items)  # no word has a quote in it


def _expression(connection: sqlite3.Connection, expression: str) -> Iterator[Sought]:
    """The expression, where any item has it."""
    items = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (expression,)).fetchone()[0]
    if items:
        yield Sought(expression, items)


def _known(connection: sqlite3.Connection, term: Term, counts: dict[str, int]) -> Iterator[Sought]:
    """A word; what a character begins; or a run, as a whole, and by its pairs where it is long or nowhere whole."""
    if term.begins:
        return _expression(connection, f'"{term.grams[0]}"*')
    pairs = [_word(gram, counts[gram]) for gram in term.grams if gram in counts]
    if len(term.grams) == 1:
        return iter(pairs)
    whole = list(_expression(connection, f'"{" ".join(term.grams)}"')) if len(pairs) == len(term.grams) else []
    return iter(whole if whole and len(term.typed) <= _WHOLE else [*whole, *pairs])
