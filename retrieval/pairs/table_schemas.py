"""What a table is by its columns: a plain table, a Google Merchant feed, a Shopify export; and `--map` before that."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from retrieval.errors import ColumnError
from retrieval.pairs.columns import IMAGE_COLUMNS, Record, column_key, records
from retrieval.pairs.feeds import google_merchant, shopify
from retrieval.pairs.tables import Row, Table


@dataclass(frozen=True, slots=True)
class Feed:
    """A kind of table.

    Attributes:
        layout: what it is called.
        fields: columns by the names that `--map` may use for them.
        read: its records; refusals go to the table.
    """

    layout: str
    fields: Mapping[str, str]
    read: Callable[[Table], Iterator[Record] | list[Record]]


PLAIN = Feed("table", {"image": IMAGE_COLUMNS[0], "images": IMAGE_COLUMNS[0]}, records)
GOOGLE = Feed(google_merchant.LAYOUT, google_merchant.FIELDS, google_merchant.read_products)
SHOPIFY = Feed(shopify.LAYOUT, shopify.FIELDS, shopify.read_products)


def understand(
    table: Table, fields: Mapping[str, str] | None = None, *, feed: Feed | None = None
) -> tuple[list[Record], str]:
    """Records of a table and the name of its layout.

    Args:
        table: the rows; refusals are added to it.
        fields: columns by the field that they are to be: id, image, title, description, caption, or any attribute. An
            empty column drops the field.
        feed: what the table is, where that is known; else its columns tell.

    Raises:
        ColumnError: a field names a column that is not there.
        PairsError: no column names an image.
    """
    columns = table.columns()
    if not columns:
        return [], (feed or PLAIN).layout
    asked = {field: column for field, column in (fields or {}).items() if column}
    chosen = {field: _column(column, columns, table.name) for field, column in asked.items()}
    dropped = {column_key(field) for field, column in (fields or {}).items() if not column}
    kind = feed or _kind(columns, chosen)
    plain = _renamed(table, chosen, dropped=dropped, fields=kind.fields) if fields else table
    return [_without(record, dropped) for record in kind.read(plain)], kind.layout


def _kind(columns: list[str], chosen: Mapping[str, str]) -> Feed:
    """What these columns make a table, with the fields that were chosen."""
    keys = {column_key(name) for name in columns}
    if shopify.is_feed(keys):
        return SHOPIFY
    keys |= {GOOGLE.fields.get(key, key) for key in map(column_key, chosen)}
    return GOOGLE if google_merchant.is_feed(keys) else PLAIN


def _column(asked: str, columns: list[str], table: str) -> str:
    """The column of that name, or of its key."""
    keys = {column_key(name): name for name in reversed(columns)}
    if asked in columns or column_key(asked) in keys:
        return asked if asked in columns else keys[column_key(asked)]
    near = difflib.get_close_matches(column_key(asked), keys, n=3, cutoff=0.5)
    named = [keys[key] for key in near] or columns[:20]
    raise ColumnError(f"{table} has no column {asked!r}; {'near it' if near else 'there'} are: {', '.join(named)}")


def _renamed(table: Table, chosen: Mapping[str, str], *, dropped: AbstractSet[str], fields: Mapping[str, str]) -> Table:
    """The table with each field's column under the field's name, in place of what was there under it."""
    keys = {fields.get(key, key) for key in (*map(column_key, chosen), *dropped)}
    gone = {name for name in table.columns() if fields.get(column_key(name), column_key(name)) in keys}
    gone |= set(chosen.values())
    names = {fields.get(column_key(field), field): column for field, column in chosen.items()}

    def renamed(row: Row) -> Row:
        found = {name: row[column] for name, column in names.items() if column in row}
        return found | {name: cell for name, cell in row.items() if name not in gone}

    return replace(table, rows=[(place, renamed(row)) for place, row in table.rows])


def _without(record: Record, dropped: AbstractSet[str]) -> Record:
    """The record without attributes that are made of other columns: price_max of the prices."""
    left = {name: value for name, value in record.attributes.items() if column_key(name) not in dropped}
    return record if len(left) == len(record.attributes) else replace(record, attributes=left)
