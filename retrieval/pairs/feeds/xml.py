"""Google Merchant's feeds in XML, RSS 2.0 and Atom, as tables: an item is a row, a tag a column."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from retrieval.errors import PairsError
from retrieval.pairs.tables import LONGEST_FIELD, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

_DEEPEST = 100
_ROOTS = {"rss": "item", "feed": "entry", "RDF": "item"}


def read_xml(path: Path) -> Table:
    """Items of a feed, one in memory at a time. A tag that is repeated is a list, one that has tags inside a dict.

    A feed that breaks off is refused as a whole: to sync with its first half would drop the other from the catalog.

    Raises:
        PairsError: it cannot be read, is no XML, declares entities (they could grow without end), or has another root.
    """
    from defusedxml import DefusedXmlException

    table = Table(path.name, typed=False)
    try:
        with path.open("rb") as file:
            for number, element in enumerate(_items(file, path.name), 1):
                _add(table, f"item {number}", element)
    except DefusedXmlException as error:
        raise PairsError(
            f"{path.name} declares a document type or entities, which no feed needs; remove them"
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two are of encodings
        raise PairsError(
            f"{path.name} is not XML that is whole ({error}); nothing of it is taken, save it again"
        ) from error
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror or error})") from error
    return table


def _items(file: Any, name: str) -> "Iterator[Element]":
    """Each item once it is complete, emptied afterwards."""
    from defusedxml.ElementTree import iterparse

    wanted, depth = "", 0
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        wanted = wanted or _item_tag(element, name)
        depth += 1 if event == "start" else -1
        if depth > _DEEPEST:
            raise PairsError(f"{name} has more than {_DEEPEST} tags inside each other, which no feed needs")
        if event == "end" and _local(element) == wanted and depth in {1, 2}:  # below the root, or RSS's channel
            yield element
            element.clear()


def _item_tag(root: "Element", name: str) -> str:
    try:
        return _ROOTS[_local(root)]
    except KeyError:
        raise PairsError(
            f"{name} holds <{_local(root)}> where a feed of Google Merchant's holds <rss> or <feed>"
        ) from None


def _local(element: "Element") -> str:
    return str(element.tag).rpartition("}")[2]


def _add(table: Table, place: str, item: "Element") -> None:
    row = _row(item)
    if any(isinstance(cell, str) and len(cell) > LONGEST_FIELD for cell in row.values()):
        table.hide(place, f"has a text of more than {LONGEST_FIELD:,} characters")
    else:
        table.rows.append((place, row))


def _row(item: "Element") -> Row:
    """Values by tag; of one in several namespaces (<title> and <g:title>) Google's own counts."""
    row: Row = {}
    google = {_local(child) for child in item if "base.google.com" in child.tag}
    for child in item:
        name = _local(child)
        if name in google and "base.google.com" not in child.tag:
            continue
        value = _value(child)
        row[name] = [*_as_list(row[name]), value] if name in row else value
    return row


def _value(element: "Element") -> Value:
    if len(element) and "base.google.com" in element.tag:
        return _row(element)
    text = "".join(element.itertext()).strip()  # of Atom's XHTML too
    return text or element.get("href") or ""


def _as_list(value: Value) -> list[Value]:
    return value if isinstance(value, list) else [value]
