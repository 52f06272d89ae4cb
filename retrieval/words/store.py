"""The full-text index of the items: FTS5's table, the identifiers, and the document frequency of each token.

The index changes in the same transactions as the items. FTS5 keeps the tokens that it was given: they are removed as
they were inserted, whatever the tokenizer of a later release would do.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from retrieval.words.tokens import MAX_TOKEN_LENGTH, normalize_identifier, tokenize

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
"""`vocabulary.items` is the document frequency. Numbers only grow, so a reader of the vocabulary can read on later."""

COLUMN_WEIGHTS = {"names": 4.0, "title": 3.0, "text": 1.0, "facts": 2.0}
"""Weight of one occurrence in each column, in the order of the columns."""

ALL_ITEMS = ""
"""The vocabulary entry that every item counts for."""

_IDENTIFIERS = frozenset({"id", "ids", "sku", "skus", "gtin", "ean", "upc", "mpn", "isbn", "asin", "barcode"})
_NAMES = _IDENTIFIERS | {"brand", "model", "size"}
_SEPARATORS = re.compile(r"[|,;\n]")
_URL = re.compile(r"\s*(https?|ftp|s3|gs|data|file):", re.IGNORECASE)  # URLs are not searched for
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BATCH_SIZE = 1000


class Document(NamedTuple):
    """The searchable text of an item."""

    item: int
    id: str
    captions: Sequence[str]
    attributes: Mapping[str, Any]


def index_documents(connection: sqlite3.Connection, documents: Sequence[Document]) -> None:
    """Index the items, replacing what was indexed of them, inside the caller's transaction.

    The columns are `names` (the id, and attributes that name things, see `is_naming_attribute`), `title` (the first
    caption), `text` (the other captions) and `facts` (the other attributes that are text).
    """
    rows = [(document.item, *map(" ".join, _columns(document))) for document in documents]
    frequencies = _document_frequencies(rows)
    frequencies.subtract(_delete_rows(connection, [document.item for document in documents]))
    connection.executemany("INSERT INTO words (rowid, names, title, text, facts) VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany(
        "INSERT OR IGNORE INTO identifiers VALUES (?, ?, ?)",
        [(document.item, key, spelled) for document in documents for key, spelled in _identifiers(document)],
    )
    _add_frequencies(connection, frequencies)


def remove_documents(connection: sqlite3.Connection, items: Iterable[int]) -> None:
    """Remove the items from the index, inside the caller's transaction."""
    frequencies: Counter[str] = Counter()
    frequencies.subtract(_delete_rows(connection, items))
    _add_frequencies(connection, frequencies)


def index_all_items(connection: sqlite3.Connection) -> None:
    """Index all items of a catalog without an index, inside the caller's transaction."""
    last = -1
    sql = "SELECT number, id, attributes FROM items WHERE number > ? ORDER BY number LIMIT ?"
    while rows := connection.execute(sql, (last, _BATCH_SIZE)).fetchall():
        captions = _captions(connection, [number for number, _, _ in rows])
        documents = [Document(item, name, captions[item], json.loads(text)) for item, name, text in rows]
        index_documents(connection, documents)
        last = rows[-1][0]


@lru_cache(4096)
def is_naming_attribute(key: str, names: frozenset[str] = _NAMES) -> bool:
    """Whether an attribute names its item: a token of its key, without trailing digits, is one of the names.

    "skus", "product_id", "GTIN-13", "shoeSize" and "brand.name" have such a token, "video" has none.
    """
    return any(token.rstrip("0123456789") in names for token in tokenize(_CAMEL_CASE.sub(" ", key)))


def _captions(connection: sqlite3.Connection, items: Sequence[int]) -> dict[int, list[str]]:
    captions: dict[int, list[str]] = {item: [] for item in items}
    rows = connection.execute(
        "SELECT item, text FROM captions WHERE item IN (SELECT value FROM json_each(?)) ORDER BY item, position",
        (json.dumps(list(items)),),
    )
    for item, text in rows:
        captions[item].append(text)
    return captions


def _columns(document: Document) -> tuple[Iterable[str], ...]:
    """Return the tokens of each column."""
    names = dict.fromkeys(tokenize(document.id))  # each once: a list of SKUs repeats "black" for every size
    facts: list[str] = []
    for key, value in _flatten(document.attributes):
        if is_naming_attribute(key):
            names |= dict.fromkeys(tokenize(_format_value(value)))
        elif isinstance(value, str) and value not in document.captions and not _URL.match(value):
            facts += tokenize(value)
    text = [token for caption in document.captions[1:] for token in tokenize(caption)]
    return names, tokenize("".join(document.captions[:1])), text, facts


def _identifiers(document: Document) -> Iterator[tuple[str, str]]:
    """Yield the normalized form and the spelling of the id, of identifying attributes and of the parts of lists."""
    spellings = [document.id]
    for key, value in _flatten(document.attributes):
        if is_naming_attribute(key, _IDENTIFIERS):
            spellings += [_format_value(value), *_SEPARATORS.split(_format_value(value))]
    for spelling in spellings:
        if 0 < len(key := normalize_identifier(spelling)) <= MAX_TOKEN_LENGTH:
            yield key, spelling.strip()


def _flatten(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    """Yield each text and number in the attributes with its dotted key, by sorted keys; each element of a list."""
    pending = sorted(attributes.items(), reverse=True)
    while pending:
        key, value = pending.pop()
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            yield key, value
        elif isinstance(value, Mapping):
            pending += [(f"{key}.{inner}", value[inner]) for inner in sorted(value, reverse=True)]
        elif isinstance(value, list | tuple):
            pending += [(key, one) for one in value][::-1]


def _format_value(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _delete_rows(connection: sqlite3.Connection, items: Iterable[int]) -> Counter[str]:
    """Delete the items' rows; return the document frequencies that they accounted for."""
    numbers = [(item,) for item in items]
    rows: list[tuple[Any, ...]] = []
    for number in numbers:
        rows += connection.execute("SELECT rowid, names, title, text, facts FROM words WHERE rowid = ?", number)
    connection.executemany("DELETE FROM words WHERE rowid = ?", [row[:1] for row in rows])
    connection.executemany("DELETE FROM identifiers WHERE item = ?", numbers)
    return _document_frequencies(rows)


def _document_frequencies(rows: Iterable[tuple[Any, ...]]) -> Counter[str]:
    """Count the rows that contain each token."""
    frequencies: Counter[str] = Counter()
    for _, *columns in rows:
        frequencies.update({ALL_ITEMS, *" ".join(columns).split()})
    return frequencies


def _add_frequencies(connection: sqlite3.Connection, frequencies: Mapping[str, int]) -> None:
    connection.executemany(
        "INSERT INTO vocabulary (word, items) VALUES (?, ?) "
        "ON CONFLICT (word) DO UPDATE SET items = items + excluded.items",
        [(token, count) for token, count in frequencies.items() if count],
    )
    decreased = [(token,) for token, count in frequencies.items() if count < 0]
    connection.executemany("DELETE FROM vocabulary WHERE word = ? AND items = 0", decreased)
