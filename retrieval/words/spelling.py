"""Spelling correction: the words of a catalog that are near to a mistyped one."""

import sqlite3
import threading

_MIN_LENGTH = 4  # every shorter word is near to some other
_LONG = 8
_MAX_CODES = 20_000
_MAX_CORRECTIONS = 3  # equally near words that one mistyped word may stand for


class SpellingIndex:
    """The vocabulary of one catalog in memory, read at the first mistake; later only new words are read.

    Threads may share it; each brings its own connection. A word that the catalog no longer has stays here: the caller
    knows the document frequencies as of its connection. Words with digits, of which an item may have several, are not
    kept in memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_number = 0
        self._known: set[str] = set()
        self._by_length: dict[int, list[str]] = {}

    def suggest(self, word: str, connection: sqlite3.Connection) -> list[list[str]]:
        """Return lists of the words within distance one, from eight letters on two; the likelier lists first.

        The distance is that of optimal string alignment: missing, additional, wrong and transposed letters. Short words
        have no suggestions. A word with digits is compared with the words that begin with its first half, one without
        digits with the words without.
        """
        max_distance = 0 if len(word) < _MIN_LENGTH else 1 if len(word) < _LONG else 2
        if not max_distance:
            return []
        choices = _read_codes(word, connection) if has_digit(word) else self._words(word, max_distance, connection)
        return _group_by_distance(word, choices, max_distance)

    def _words(self, word: str, max_distance: int, connection: sqlite3.Connection) -> list[str]:
        lengths = range(len(word) - max_distance, len(word) + max_distance + 1)
        with self._lock:
            self._refresh(connection)
            return [one for length in lengths for one in self._by_length.get(length, ())]

    def _refresh(self, connection: sqlite3.Connection) -> None:
        last = connection.execute("SELECT max(number) FROM vocabulary").fetchone()[0] or 0
        if last <= self._last_number:
            return
        sql = "SELECT word FROM vocabulary WHERE number > ? AND length(word) >= ? AND word NOT GLOB '*[0-9]*'"
        for (word,) in connection.execute(sql, (self._last_number, _MIN_LENGTH - 1)):
            if word not in self._known:
                self._known.add(word)
                self._by_length.setdefault(len(word), []).append(word)
        self._last_number = last


def select_corrections(suggestions: list[list[str]], document_frequencies: dict[str, int]) -> list[str]:
    """Return the nearest of the suggestions that some item has, the most frequent first, at most three."""
    for words in suggestions:
        if known := {word for word in words if document_frequencies.get(word)}:
            return sorted(known, key=lambda word: (-document_frequencies[word], word))[:_MAX_CORRECTIONS]
    return []


def has_digit(word: str) -> bool:
    """Whether the word looks like a code."""
    return not word.isalpha() and any("0" <= character <= "9" for character in word)


def _read_codes(word: str, connection: sqlite3.Connection) -> list[str]:
    """Read the words that begin with the first half of this one."""
    prefix = word[: len(word) // 2]
    sql = "SELECT word FROM vocabulary WHERE word >= ? AND word < ? LIMIT ?"
    rows = connection.execute(sql, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1), _MAX_CODES))
    return [code for (code,) in rows]


def _group_by_distance(word: str, choices: list[str], max_distance: int) -> list[list[str]]:
    """Group by distance, and at each by whether the first letter is the same: few first letters are mistyped."""
    from rapidfuzz.distance import OSA  # at the first mistake: the import takes 30 ms
    from rapidfuzz.process import extract

    groups: list[list[str]] = [[] for _ in range(2 * max_distance + 2)]
    for choice, distance, _ in extract(word, choices, scorer=OSA.distance, score_cutoff=max_distance, limit=None):
        groups[2 * int(distance) + (choice[0] != word[0])].append(choice)
    return groups
