"""What a table is by its columns: a Shopify export, a Google Merchant feed or a plain table; `--map` comes first."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from retrieval.errors import ColumnError
from retrieval.pairs.columns import IMAGE_COLUMNS, column_key, read_plain_records
from retrieval.pairs.feeds import google_merchant, shopify
from retrieval.pairs.layout import Record
from retrieval.pairs.tables import Row, Table


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A kind of table, with columns of known meaning."""

    layout: str
    fields: Mapping[str, str]  # columns by the other names that `--map` may use for them
    # returns whether a table is of this kind, by the keys of its columns, and of those that `--map` makes
    matches: Callable[[set[str], set[str]], bool]
    read: Callable[[Table], Iterable[Record]]


PLAIN = TableSchema(
    "table", {"image": IMAGE_COLUMNS[0], "images": IMAGE_COLUMNS[0]}, lambda _keys, _mapped: True, read_plain_records
)
GOOGLE = TableSchema(
    "google merchant",
    google_merchant.FIELDS,
    lambda keys, mapped: google_merchant.is_feed(keys | mapped),
    google_merchant.read_products,
)
SHOPIFY = TableSchema("shopify", shopify.FIELDS, lambda keys, _: shopify.is_export(keys), shopify.read_products)

SCHEMAS = (SHOPIFY, GOOGLE, PLAIN)  # the first that matches a table's columns reads it


def read_records(
    table: Table, columns: Mapping[str, str] | None = None, *, schema: TableSchema | None = None
) -> tuple[list[Record], str]:
    """Return the records of a table and the name of its layout; skipped rows are added to the table.

    `columns` are those by the field that each is to become, of which an empty one drops the field. Without a `schema`
    the names of the columns tell which it is. A mapped column that does not exist is a ColumnError.
    """
    names = table.columns()
    if not names:
        return [], (schema or PLAIN).layout
    columns = columns or {}
    mapped = {field: _find_column(column, names, table.name) for field, column in columns.items() if column}
    dropped = {column_key(field) for field, column in columns.items() if not column}
    if schema is None:
        keys, fields = {column_key(name) for name in names}, {column_key(field) for field in mapped}
        schema = next(one for one in SCHEMAS if one.matches(keys, {one.fields.get(key, key) for key in fields}))
    if columns:
        table = _map_columns(table, mapped, dropped=dropped, fields=schema.fields)
    records = list(schema.read(table))
    if dropped:  # also attributes that are computed from other columns: price_max of the prices
        records = [
            replace(one, attributes={name: v for name, v in one.attributes.items() if column_key(name) not in dropped})
            for one in records
        ]
    return records, schema.layout


def _find_column(wanted: str, names: list[str], table: str) -> str:
    """Return the column of that name, or of the same key."""
    keys = {column_key(name): name for name in reversed(names)}
    if wanted in names or column_key(wanted) in keys:
        return wanted if wanted in names else keys[column_key(wanted)]
    near = [keys[key] for key in difflib.get_close_matches(column_key(wanted), keys, n=3, cutoff=0.5)]
    hint = f"Similar columns are: {', '.join(near)}." if near else f"Its columns are: {', '.join(names[:20])}."
    raise ColumnError(f"{table} has no column {wanted!r}. {hint}")


def _map_columns(table: Table, mapped: Mapping[str, str], *, dropped: set[str], fields: Mapping[str, str]) -> Table:
    """Return the table with each mapped column under its field's name, in place of any column of that name."""
    keys = {fields.get(key, key) for key in (*map(column_key, mapped), *dropped)}
    removed = {name for name in table.columns() if fields.get(column_key(name), column_key(name)) in keys}
    removed |= set(mapped.values())
    names = {fields.get(column_key(field), field): column for field, column in mapped.items()}

    def map_row(row: Row) -> Row:
        cells = {name: row[column] for name, column in names.items() if column in row}
        return cells | {name: cell for name, cell in row.items() if name not in removed}

    return replace(table, rows=[(place, map_row(row)) for place, row in table.rows])
