"""Shopify's export of products, as rows: a product is all rows of one handle, its variants and pictures among them.

https://help.shopify.com/en/manual/products/import-export/using-csv describes the columns, whose names changed in 2025.
"""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from retrieval.pairs.columns import Record, column_key, note_odd, type_columns
from retrieval.pairs.feeds.cells import distinct, first, levels, one_or_all, plain_text, price, truth
from retrieval.pairs.tables import Row, Table, Value

LAYOUT = "shopify"

SYNONYMS = {
    "url_handle": "handle",
    "product_image_url": "image_src",
    "variant_image_url": "variant_image",
    "description": "body_(html)",
    "body_html": "body_(html)",
    "published_on_online_store": "published",
    "price": "variant_price",
    "compare_at_price": "variant_compare_at_price",
    "sku": "variant_sku",
    "barcode": "variant_barcode",
    "inventory_quantity": "variant_inventory_qty",
    "inventory_tracker": "variant_inventory_tracker",
    "continue_selling_when_out_of_stock": "variant_inventory_policy",
}
"""The columns' names since 2025, and those before."""

FIELDS = SYNONYMS | {
    "id": "handle",
    "image": "image_src",
    "images": "image_src",
    "brand": "vendor",
    "caption": "title",
    "captions": "title",
}
"""Names of `--map` that are not those of the columns."""

_OPTIONS = ("1", "2", "3")
_KNOWN = frozenset(
    [
        *("handle", "title", "body_(html)", "vendor", "product_category", "type", "tags", "published", "status"),
        *("image_src", "image_position", "image_alt_text", "cost_per_item", "charge_tax", "tax_code"),
        *("weight_value_(grams)", "weight_unit_for_display", "requires_shipping", "fulfillment_service"),
    ]
)
_UNTOLD = re.compile(
    r"(variant_|option\d|seo_|unit_price|included_/|price_/|compare_at_price_/|google_shopping_/_custom_product)"
)
_METAFIELD = re.compile(r".*\(product\.metafields\.[^.]+\.(?P<name>[^)]+)\)")
_GOOGLE = "google_shopping_/_"


def is_feed(keys: AbstractSet[str]) -> bool:
    """Whether a table with these columns is such an export."""
    is_old = keys >= {"handle", "image_src"} and any(key.startswith("variant_") for key in keys)
    return is_old or keys >= {"url_handle", "product_image_url"}


@dataclass(frozen=True, slots=True)
class _Product:
    handle: str
    rows: list[tuple[str, Row]]

    def first(self, key: str) -> str | None:
        """The first text that any row has in a column."""
        return next(iter(self.all(key)), None)

    def all(self, key: str) -> list[str]:
        """Texts of a column, each once, in order."""
        return distinct([text for _, row in self.rows if (text := first(row.get(key)))])


def read_products(table: Table) -> list[Record]:
    """A record for each picture of each product, in the order of their positions, with what is true of the product.

    Drafts, archived and unpublished products are refused, unless the columns that say so were dropped by `--map`.
    """
    products = [product for product in _products(table) if not _is_withheld(product, table)]
    others = [_others(product) for product in products]
    note_odd(type_columns(others), table, [product.rows[0][0] for product in products])
    return [record for product, more in zip(products, others, strict=True) for record in _records(product, more, table)]


def _products(table: Table) -> list[_Product]:
    products: dict[str, _Product] = {}
    for place, cells in table.rows:
        row = {SYNONYMS.get(key, key): cell for name, cell in cells.items() if (key := column_key(name))}
        handle, title = first(row.get("handle")), first(row.get("title"))
        if handle is None:
            table.refuse(place, "has no handle")
            continue
        product = products.setdefault(handle, _Product(handle, []))
        if title and product.rows and title != (product.first("title") or title):
            table.refuse(place, f"repeats the handle of {product.rows[0][0]} under another title", id=handle)
        else:
            product.rows.append((place, row))
    return list(products.values())


def _is_withheld(product: _Product, table: Table) -> bool:
    status = (product.first("status") or "active").lower()
    reason = ""
    if status != "active":
        reason = f"has the status {status}; --map status= takes in what is not active"
    elif truth(product.first("published")) is False:
        reason = "is not published; --map published= takes in what is not"
    if reason:
        table.refuse(product.rows[0][0], reason, id=product.handle)
    return bool(reason)


def _records(product: _Product, others: Row, table: Table) -> Iterator[Record]:
    texts = [plain_text(text) for key in ("title", "body_(html)") for text in product.all(key)[:1]]
    attributes = {name: value for name, value in _attributes(product, others, table).items() if value not in (None, [])}
    pictures = list(_pictures(product)) or [(product.rows[0][0], "", "")]
    for place, name, alt in pictures:
        yield Record(
            place=place,
            images=(name,) if name else (),
            id=product.handle,
            captions=tuple(text for text in distinct([*texts, plain_text(alt)]) if text),
            attributes=attributes,
        )


def _pictures(product: _Product) -> Iterator[tuple[str, str, str]]:
    """Place, name and alternative text of each picture: by position, then those that only a variant has."""
    named = [(place, row, name) for place, row in product.rows if (name := first(row.get("image_src")))]
    seen = set()
    for place, row, name in sorted(named, key=lambda one: _position(one[1])):
        seen.add(name)
        yield place, name, first(row.get("image_alt_text")) or ""
    for place, row in product.rows:
        name = first(row.get("variant_image"))
        if name and name not in seen:
            seen.add(name)
            yield place, name, ""


def _position(row: Row) -> float:
    said = first(row.get("image_position")) or ""
    return int(said) if re.fullmatch(r"\d{1,9}", said, re.ASCII) else float("inf")


def _attributes(product: _Product, others: Row, table: Table) -> Row:
    own = {
        "brand": product.first("vendor"),
        "type": product.first("type"),
        "product_category": levels(product.first("product_category")),
        "tags": [tag.strip() for tag in (product.first("tags") or "").split(",") if tag.strip()],
        "status": (product.first("status") or "").lower() or None,
        **_prices(product, table),
        "skus": [sku.lstrip("'") for sku in product.all("variant_sku")],  # Shopify writes '007 against spreadsheets
        "barcodes": [code.lstrip("'") for code in product.all("variant_barcode")],
        "in_stock": _in_stock(product),
    }
    options = {f"option_{name}" if name in own else name: values for name, values in _options(product)}
    return others | options | own


def _prices(product: _Product, table: Table) -> Row:
    """The lowest and the highest price of the variants, and the highest of those that they are compared with."""
    prices = _amounts(product, "variant_price", table)
    before = _amounts(product, "variant_compare_at_price", table)
    return {
        "price": min(prices, default=None),
        "price_max": max(prices, default=None),
        "compare_at_price": max(before, default=None),
    }


def _amounts(product: _Product, key: str, table: Table) -> list[float]:
    amounts = []
    for place, row in product.rows:
        said = first(row.get(key))
        amount = price(said or "")
        if amount:
            amounts.append(amount[0])
        elif said:
            table.refuse(place, f"has {key} {said[:40]!r}, which is no price; it is left out", id=product.handle)
    return amounts


def _options(product: _Product) -> Iterator[tuple[str, list[str]]]:
    """Values of each option by its name: color, size. A product without options has one called Title."""
    for number in _OPTIONS:
        name, values = product.first(f"option{number}_name"), product.all(f"option{number}_value")
        if name and values and values != ["Default Title"]:
            yield column_key(name), values


def _in_stock(product: _Product) -> bool | None:
    """Whether any variant can be bought; None where the export says nothing of it."""
    said = [known for _, row in product.rows if (known := _can_be_bought(row)) is not None]
    return any(said) if said else None


def _can_be_bought(row: Row) -> bool | None:
    if not any(first(row.get(key)) for key in ("variant_sku", "variant_price", "option1_value")):
        return None  # the row of a further picture
    quantity = first(row.get("variant_inventory_qty"))
    if (first(row.get("variant_inventory_policy")) or "").lower() in {"continue", "true"}:
        return True
    if first(row.get("variant_inventory_tracker")) is None and "variant_inventory_tracker" in row:
        return True  # nobody counts it
    if quantity is None or not re.fullmatch(r"-?\d{1,12}", quantity, re.ASCII):
        return None
    return int(quantity) > 0


def _others(product: _Product) -> Row:
    """Columns of the shop's own, metafields, and what it tells Google."""
    keys = dict.fromkeys(key for _, row in product.rows for key in row if key not in _KNOWN and not _UNTOLD.match(key))
    return {_shown(key): _value(key, product.first(key)) for key in keys}


def _shown(key: str) -> str:
    metafield = _METAFIELD.fullmatch(key)
    return metafield["name"] if metafield else key.removeprefix(_GOOGLE)


def _value(key: str, said: str | None) -> Value:
    if key == f"{_GOOGLE}google_product_category":
        return levels(said)
    if said and _METAFIELD.fullmatch(key) and ";" in said:
        return one_or_all([part.strip() for part in said.split(";") if part.strip()])
    return said
