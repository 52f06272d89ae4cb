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
_ITEM_TAGS = {"rss": "item", "feed": "entry", "RDF": "item"}  # by the root's
_GOOGLE = "base.google.com"


def read_xml(path: Path) -> Table:
    """Return the items of a feed, parsed one at a time. A repeated tag is a list, one with tags inside a dict.

    A truncated feed is a PairsError as a whole: to sync with its first half would drop the other from the catalog. So
    is one that declares entities, which may expand without end.
    """
    from defusedxml import DefusedXmlException

    table = Table(path.name, path, typed=False)
    try:
        with path.open("rb") as file:
            for number, element in enumerate(_iter_items(file, path.name), 1):
                row = _to_row(element)
                if any(isinstance(cell, str) and len(cell) > LONGEST_FIELD for cell in row.values()):
                    table.skip(f"item {number}", f"has a text of more than {LONGEST_FIELD:,} characters")
                else:
                    table.rows.append((f"item {number}", row))
    except DefusedXmlException as error:
        message = f"{path.name} declares a document type or entities, which no feed needs. Remove them."
        raise PairsError(message) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two come from encodings
        message = f"{path.name} is not complete XML ({error}). No item of it is taken; save it again."
        raise PairsError(message) from error
    return table


def _iter_items(file: Any, name: str) -> "Iterator[Element]":
    """Yield each item once it is complete, and clear it afterwards."""
    from defusedxml.ElementTree import iterparse

    item_tag, depth = "", 0
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        tag = _local_name(element)
        item_tag = item_tag or _ITEM_TAGS.get(tag, "")
        if not item_tag:
            raise PairsError(f"{name} holds <{tag}> where a Google Merchant feed holds <rss> or <feed>.")
        depth += 1 if event == "start" else -1
        if depth > _MAX_DEPTH:
            raise PairsError(f"{name} has more than {_MAX_DEPTH} tags inside each other, which no feed needs.")
        if event == "end" and tag == item_tag and depth in {1, 2}:  # below the root, or RSS's channel
            yield element
            element.clear()


def _local_name(element: "Element") -> str:
    return str(element.tag).rpartition("}")[2]


def _to_row(item: "Element") -> Row:
    """Return the values by tag; of a tag in two namespaces (<title> and <g:title>) Google's own counts."""
    row: Row = {}
    google = {_local_name(child) for child in item if _GOOGLE in child.tag}
    for child in item:
        name = _local_name(child)
        if name in google and _GOOGLE not in child.tag:
            continue
        if len(child) and _GOOGLE in child.tag:
            value: Value = _to_row(child)
        else:
            value = "".join(child.itertext()).strip() or child.get("href") or ""  # also of Atom's XHTML
        if name in row:
            value = [*(row[name] if isinstance(row[name], list) else [row[name]]), value]
        row[name] = value
    return row
