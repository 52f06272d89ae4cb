"""Google Merchant feeds in XML, RSS 2.0 or Atom, as tables: an item is a row, a tag a column."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from retrieval.errors import PairsError
from retrieval.pairs.tables import LONGEST_FIELD, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

_MAX_DEPTH = 100
_ROOTS = {"rss": "item", "feed": "entry", "RDF": "item"}


def read_xml(path: Path) -> Table:
    """Return the items of a feed, parsed one at a time. A repeated tag is a list, one with tags inside a dict.

    A truncated feed is refused as a whole: to sync with its first half would drop the other from the catalog.

    Raises:
        PairsError: It cannot be read, is not XML, declares entities (which may expand without end), or has another
            root.
    """
    from defusedxml import DefusedXmlException

    table = Table(path.name, path, typed=False)
    try:
        with path.open("rb") as file:
            for number, element in enumerate(_iter_items(file, path.name), 1):
                _add_item(table, f"item {number}", element)
    except DefusedXmlException as error:
        raise PairsError(
            f"{path.name} declares a document type or entities, which no feed needs. Remove them."
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two come from encodings
        raise PairsError(
            f"{path.name} is not complete XML ({error}). No item of it is taken; save it again."
        ) from error
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror or error}).") from error
    return table


def _iter_items(file: Any, name: str) -> "Iterator[Element]":
    """Yield each item once it is complete, and clear it afterwards."""
    from defusedxml.ElementTree import iterparse

    item_tag, depth = "", 0
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        item_tag = item_tag or _find_item_tag(element, name)
        depth += 1 if event == "start" else -1
        if depth > _MAX_DEPTH:
            raise PairsError(f"{name} has more than {_MAX_DEPTH} tags inside each other, which no feed needs.")
        if event == "end" and _local_name(element) == item_tag and depth in {1, 2}:  # below the root, or RSS's channel
            yield element
            element.clear()


def _find_item_tag(root: "Element", name: str) -> str:
    try:
        return _ROOTS[_local_name(root)]
    except KeyError:
        raise PairsError(
            f"{name} holds <{_local_name(root)}> where a Google Merchant feed holds <rss> or <feed>."
        ) from None


def _local_name(element: "Element") -> str:
    return str(element.tag).rpartition("}")[2]


def _add_item(table: Table, place: str, item: "Element") -> None:
    row = _to_row(item)
    if any(isinstance(cell, str) and len(cell) > LONGEST_FIELD for cell in row.values()):
        table.skip(place, f"has a text of more than {LONGEST_FIELD:,} characters", may_hide_items=True)
    else:
        table.rows.append((place, row))


def _to_row(item: "Element") -> Row:
    """Return the values by tag; of a tag in two namespaces (<title> and <g:title>) Google's own counts."""
    row: Row = {}
    google = {_local_name(child) for child in item if "base.google.com" in child.tag}
    for child in item:
        name = _local_name(child)
        if name in google and "base.google.com" not in child.tag:
            continue
        value = _to_value(child)
        row[name] = [*_as_list(row[name]), value] if name in row else value
    return row


def _to_value(element: "Element") -> Value:
    if len(element) and "base.google.com" in element.tag:
        return _to_row(element)
    text = "".join(element.itertext()).strip()  # also of Atom's XHTML
    return text or element.get("href") or ""


def _as_list(value: Value) -> list[Value]:
    return value if isinstance(value, list) else [value]
