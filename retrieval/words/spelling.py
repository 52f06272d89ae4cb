"""Words near to a mistyped one, among those that a catalog has."""

import sqlite3
import threading

_SHORTEST = 4  # of fewer letters every word is near to some other
_LONG = 8
_MOST_CODES = 20_000
_LIKELY = 3  # equally near words that one mistyped word may stand for


class Spelling:
    """The words of one catalog in memory, read at the first mistake; later only new words are read.

    Safe to share between threads that each bring their own connection. A word that is gone from the catalog stays in
    here: who asks says how many items have each word as his connection sees them. Words with digits, of which there
    may be several for each item, are not kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_to = 0
        self._known: set[str] = set()
        self._by_length: dict[int, list[str]] = {}

    def near(self, word: str, connection: sqlite3.Connection) -> list[list[str]]:
        """Return the words at distance one, from eight letters on also at distance two: lists, the likelier ones first.

        The distance counts letters that are missing, too many, wrong, or in the place of their neighbour (optimal
        string alignment). Short words are near to none. A word with digits is near to words that begin with the same
        half, one without is near to words without.
        """
        farthest = 0 if len(word) < _SHORTEST else 1 if len(word) < _LONG else 2
        if not farthest:
            return []
        choices = _codes(word, connection) if has_digit(word) else self._words(word, farthest, connection)
        return _sorted_by_distance(word, choices, farthest)

    def _words(self, word: str, farthest: int, connection: sqlite3.Connection) -> list[str]:
        lengths = range(len(word) - farthest, len(word) + farthest + 1)
        with self._lock:
            self._refresh(connection)
            return [one for length in lengths for one in self._by_length.get(length, ())]

    def _refresh(self, connection: sqlite3.Connection) -> None:
        last = connection.execute("SELECT max(number) FROM vocabulary").fetchone()[0] or 0
        if last <= self._read_to:
            return
        sql = "SELECT word FROM vocabulary WHERE number > ? AND length(word) >= ? AND word NOT GLOB '*[0-9]*'"
        for (word,) in connection.execute(sql, (self._read_to, _SHORTEST - 1)):
            if word not in self._known:
                self._known.add(word)
                self._by_length.setdefault(len(word), []).append(word)
        self._read_to = last


def _codes(word: str, connection: sqlite3.Connection) -> list[str]:
    """Words that begin as this one does."""
    begin = word[: len(word) // 2]
    sql = "SELECT word FROM vocabulary WHERE word >= ? AND word < ? LIMIT ?"
    rows = connection.execute(sql, (begin, begin[:-1] + chr(ord(begin[-1]) + 1), _MOST_CODES))
    return [one for (one,) in rows]


def nearest(candidates: list[list[str]], items: dict[str, int]) -> list[str]:
    """Return the nearest of the candidates that any items have, the more frequent first, and not many."""
    for words in candidates:
        if found := {word for word in words if items.get(word)}:
            return sorted(found, key=lambda word: (-items[word], word))[:_LIKELY]
    return []


def has_digit(word: str) -> bool:
    """Whether the word looks like a code."""
    return not word.isalpha() and any("0" <= character <= "9" for character in word)


def _sorted_by_distance(word: str, choices: list[str], farthest: int) -> list[list[str]]:
    """The choices by distance; at each those before the others that begin alike, since few first letters are wrong."""
    from rapidfuzz.distance import OSA  # at the first mistake: it takes 30 ms
    from rapidfuzz.process import extract

    near = extract(word, choices, scorer=OSA.distance, score_cutoff=farthest, limit=None)
    levels: list[list[str]] = [[] for _ in range(2 * farthest + 2)]
    for choice, distance, _ in near:
        levels[2 * int(distance) + (choice[0] != word[0])].append(choice)
    return levels
