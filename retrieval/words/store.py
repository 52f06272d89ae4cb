"""The words of items, for search by words: FTS5's table, the identifiers, and how many items have each word.

They change in the transactions that change the items, so they are never out of step. FTS5 keeps the words that it was
given: they are taken out again as they went in, whatever a later release takes for a word.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from retrieval.words.tokens import MAX_WORD, identifier_key, stored_words

SCHEMA = """
CREATE VIRTUAL TABLE words USING fts5 (names, title, text, facts, tokenize = 'ascii');
CREATE TABLE vocabulary (number INTEGER PRIMARY KEY AUTOINCREMENT, word TEXT NOT NULL UNIQUE, items INTEGER NOT NULL);
CREATE TABLE identifiers (
    item INTEGER NOT NULL REFERENCES items (number) ON DELETE CASCADE,
    key TEXT NOT NULL,
    spelled TEXT NOT NULL,
    PRIMARY KEY (item, key, spelled)
) WITHOUT ROWID;
CREATE INDEX identifiers_by_key ON identifiers (key);
"""
"""A word's number is greater than those of all words before it: readers of the vocabulary read on where they were."""

WEIGHTS = {"names": 4.0, "title": 3.0, "text": 1.0, "facts": 2.0}
"""Of one occurrence in each column, in the order of the columns."""

EVERY = ""
"""The word in the vocabulary that every item has."""

_IDENTIFIERS = frozenset({"id", "ids", "sku", "skus", "gtin", "ean", "upc", "mpn", "isbn", "asin", "barcode"})
_NAMES = _IDENTIFIERS | {"brand", "model", "size"}
_LISTED = re.compile(r"[|,;\n]")
_ADDRESS = re.compile(r"\s*(https?|ftp|s3|gs|data|file):", re.IGNORECASE)  # of a picture or a page: nobody's words
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BATCH = 1000


class Wording(NamedTuple):
    """What an item says in words."""

    item: int
    id: str
    captions: Sequence[str]
    attributes: Mapping[str, Any]


def put_words(connection: sqlite3.Connection, wordings: Sequence[Wording]) -> None:
    """Replace the words of these items, inside the caller's transaction.

    The columns are `names` (the id, and attributes that name things, see `names_things`), `title` (the first caption),
    `text` (the other captions) and `facts` (the other attributes that are text).
    """
    rows = [(wording.item, *map(" ".join, _columns(wording))) for wording in wordings]
    counts = _counted(rows)
    counts.subtract(_remove(connection, [wording.item for wording in wordings]))
    connection.executemany("INSERT INTO words (rowid, names, title, text, facts) VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "INSERT OR IGNORE INTO identifiers VALUES (?, ?, ?)",
        [(wording.item, key, spelled) for wording in wordings for key, spelled in _identifiers(wording)],
    )
    _count(connection, counts)


def drop_words(connection: sqlite3.Connection, items: Iterable[int]) -> None:
    """Remove the words of these items, inside the caller's transaction."""
    counts: Counter[str] = Counter()
    counts.subtract(_remove(connection, items))
    _count(connection, counts)


def fill_words(connection: sqlite3.Connection) -> None:
    """Make the words of all items that are there, which have none, inside the caller's transaction."""
    last = -1
    sql = "SELECT number, id, attributes FROM items WHERE number > ? ORDER BY number LIMIT ?"
    while rows := connection.execute(sql, (last, _BATCH)).fetchall():
        captions = _captions(connection, [number for number, _, _ in rows])
        put_words(connection, [Wording(item, name, captions[item], json.loads(text)) for item, name, text in rows])
        last = rows[-1][0]


@lru_cache(4096)
def names_things(key: str, names: frozenset[str] = _NAMES) -> bool:
    """Whether an attribute names its item: a word of its key, singular, without trailing digits, is one of the names.

    The words of "skus", "product_id", "GTIN-13", "shoeSize" and "brand.name" are among them, that of "video" is not.
    """
    words = stored_words(_CAMEL.sub(" ", key))
    return any(word.rstrip("0123456789") in names for word in words)


def _captions(connection: sqlite3.Connection, items: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {item: [] for item in items}
    rows = connection.execute(
        "SELECT item, text FROM captions WHERE item IN (SELECT value FROM json_each(?)) ORDER BY item, position",
        (json.dumps(list(items)),),
    )
    for item, text in rows:
        found[item].append(text)
    return found


# --- what is stored


def _columns(wording: Wording) -> tuple[Iterable[str], ...]:
    """The words of each column."""
    names = dict.fromkeys(stored_words(wording.id))  # each once: a list of SKUs says "black" for every size
    facts: list[str] = []
    for key, value in _values(wording.attributes):
        if names_things(key):
            names |= dict.fromkeys(stored_words(_spelled(value)))
        elif isinstance(value, str) and value not in wording.captions and not _ADDRESS.match(value):
            facts += stored_words(value)
    rest = [word for caption in wording.captions[1:] for word in stored_words(caption)]
    return names, stored_words("".join(wording.captions[:1])), rest, facts


def _identifiers(wording: Wording) -> Iterator[tuple[str, str]]:
    """The id, the values of identifying attributes, and the parts of lists: what each is compared by, its spelling."""
    spelled = [wording.id]
    for key, value in _values(wording.attributes):
        if names_things(key, _IDENTIFIERS):
            spelled += [_spelled(value), *_LISTED.split(_spelled(value))]
    keys = ((identifier_key(one), one.strip()) for one in spelled)
    return ((key, one) for key, one in keys if 0 < len(key) <= MAX_WORD)


def _values(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    """Each text and number in the attributes, by sorted keys, with its dotted key; of lists every element."""
    pending = sorted(attributes.items(), reverse=True)
    while pending:
        key, value = pending.pop()
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield key, value
        elif isinstance(value, Mapping):
            pending += [(f"{key}.{inner}", value[inner]) for inner in sorted(value, reverse=True)]
        elif isinstance(value, list | tuple):
            pending += [(key, one) for one in value][::-1]


def _spelled(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# --- tables


def _remove(connection: sqlite3.Connection, items: Iterable[int]) -> Counter[str]:
    """Remove what there is of these items; return how many of them had each word."""
    numbers = [(item,) for item in items]
    rows: list[tuple[Any, ...]] = []
    for number in numbers:
        rows += connection.execute("SELECT rowid, names, title, text, facts FROM words WHERE rowid = ?", number)
    connection.executemany("DELETE FROM words WHERE rowid = ?", [row[:1] for row in rows])
    connection.executemany("DELETE FROM identifiers WHERE item = ?", numbers)
    return _counted(rows)


def _counted(rows: Iterable[tuple[Any, ...]]) -> Counter[str]:
    """How many of the rows have each word."""
    counts: Counter[str] = Counter()
    for _, *columns in rows:
        counts.update({EVERY, *" ".join(columns).split()})
    return counts


def _count(connection: sqlite3.Connection, counts: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO vocabulary (word, items) VALUES (?, ?) "
        "ON CONFLICT (word) DO UPDATE SET items = items + excluded.items",
        [(word, count) for word, count in counts.items() if count],
    )
    fewer = [(word,) for word, count in counts.items() if count < 0]
    connection.executemany("DELETE FROM vocabulary WHERE word = ? AND items = 0", fewer)
