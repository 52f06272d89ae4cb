"""Shopify's export of products: a product is all rows of one handle, its variants and images among them.

https://help.shopify.com/en/manual/products/import-export/using-csv describes the columns, which were renamed in 2025.
"""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from retrieval.pairs.columns import Record, column_key, infer_types
from retrieval.pairs.feeds.cells import (
    deduplicate,
    first_text,
    parse_boolean,
    parse_price,
    split_categories,
    strip_html,
    unwrap_single,
)
from retrieval.pairs.tables import Row, Table, Value

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
"""Names for `--map` beside those of the columns."""

_OPTIONS = ("1", "2", "3")
_KNOWN = frozenset(
    [
        *("handle", "title", "body_(html)", "vendor", "product_category", "type", "tags", "published", "status"),
        *("image_src", "image_position", "image_alt_text", "cost_per_item", "charge_tax", "tax_code"),
        *("weight_value_(grams)", "weight_unit_for_display", "requires_shipping", "fulfillment_service"),
    ]
)
_IGNORED = re.compile(
    r"(variant_|option\d|seo_|unit_price|included_/|price_/|compare_at_price_/|google_shopping_/_custom_product)"
)
_METAFIELD = re.compile(r".*\(product\.metafields\.[^.]+\.(?P<name>[^)]+)\)")
_GOOGLE = "google_shopping_/_"


def is_export(keys: AbstractSet[str]) -> bool:
    """Return whether a table with these columns is such an export."""
    is_old = keys >= {"handle", "image_src"} and any(key.startswith("variant_") for key in keys)
    return is_old or keys >= {"url_handle", "product_image_url"}


@dataclass(frozen=True, slots=True)
class _Product:
    handle: str
    rows: list[tuple[str, Row]]

    @property
    def place(self) -> str:
        return self.rows[0][0]

    def first(self, key: str) -> str | None:
        """Return the first text that any row has in a column."""
        return next(iter(self.all(key)), None)

    def all(self, key: str) -> list[str]:
        """Return the distinct texts of a column, in order."""
        return deduplicate(first_text(row.get(key)) or "" for _, row in self.rows)


def read_products(table: Table) -> list[Record]:
    """Return a record for each image of each product, in the order of their positions, with the product's attributes.

    Drafts, archived and unpublished products are skipped, unless `--map` drops the columns that say so.
    """
    products = [product for product in _group_rows(table) if not _is_withheld(product, table)]
    others = [_other_attributes(product) for product in products]
    infer_types(others, table, [product.place for product in products])
    pairs = zip(products, others, strict=True)
    return [record for product, more in pairs for record in _to_records(product, more, table)]


def _group_rows(table: Table) -> list[_Product]:
    products: dict[str, _Product] = {}
    for place, cells in table.rows:
        row = {SYNONYMS.get(key, key): cell for name, cell in cells.items() if (key := column_key(name))}
        handle, title = first_text(row.get("handle")), first_text(row.get("title"))
        if handle is None:
            table.skip(place, "has no handle")
            continue
        product = products.setdefault(handle, _Product(handle, []))
        if title and product.rows and title != (product.first("title") or title):
            table.skip(place, f"repeats the handle of {product.place} under another title", id=handle)
        else:
            product.rows.append((place, row))
    return list(products.values())


def _is_withheld(product: _Product, table: Table) -> bool:
    status = (product.first("status") or "active").lower()
    reason = ""
    if status != "active":
        reason = f"has the status {status}; --map status= adds products that are not active"
    elif parse_boolean(product.first("published")) is False:
        reason = "is not published; --map published= adds unpublished products"
    if reason:
        table.skip(product.place, reason, id=product.handle)
    return bool(reason)


def _to_records(product: _Product, others: Row, table: Table) -> Iterator[Record]:
    texts = [strip_html(text) for key in ("title", "body_(html)") for text in product.all(key)[:1]]
    attributes = {name: value for name, value in _attributes(product, others, table).items() if value not in (None, [])}
    for place, name, alt in list(_images(product)) or [(product.place, "", "")]:
        yield Record(
            place=place,
            images=(name,) if name else (),
            id=product.handle,
            captions=tuple(deduplicate([*texts, strip_html(alt)])),
            attributes=attributes,
        )


def _images(product: _Product) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and alternative text of each image: by position, then those that only a variant has."""
    named = [(place, row, name) for place, row in product.rows if (name := first_text(row.get("image_src")))]
    for place, row, name in sorted(named, key=lambda entry: _position(entry[1])):
        yield place, name, first_text(row.get("image_alt_text")) or ""
    seen = {name for _, _, name in named}
    for place, row in product.rows:
        name = first_text(row.get("variant_image")) or ""
        if name and name not in seen:
            seen.add(name)
            yield place, name, ""


def _position(row: Row) -> float:
    text = first_text(row.get("image_position")) or ""
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else float("inf")


def _attributes(product: _Product, others: Row, table: Table) -> Row:
    own = {
        "brand": product.first("vendor"),
        "type": product.first("type"),
        "product_category": split_categories(product.first("product_category")),
        "tags": [tag.strip() for tag in (product.first("tags") or "").split(",") if tag.strip()],
        "status": (product.first("status") or "").lower() or None,
        **_prices(product, table),
        "skus": [sku.lstrip("'") for sku in product.all("variant_sku")],  # '007: an apostrophe against spreadsheets
        "barcodes": [code.lstrip("'") for code in product.all("variant_barcode")],
        "in_stock": _in_stock(product),
    }
    options = {f"option_{name}" if name in own else name: values for name, values in _options(product)}
    return others | options | own


def _prices(product: _Product, table: Table) -> Row:
    """Return the lowest and the highest price of the variants, and the highest price they are compared with."""
    prices = _amounts(product, "variant_price", table)
    return {
        "price": min(prices, default=None),
        "price_max": max(prices, default=None),
        "compare_at_price": max(_amounts(product, "variant_compare_at_price", table), default=None),
    }


def _amounts(product: _Product, key: str, table: Table) -> list[float]:
    amounts = []
    for place, row in product.rows:
        text = first_text(row.get(key)) or ""
        if price := parse_price(text):
            amounts.append(price[0])
        elif text:
            table.skip(place, f"has {key} {text[:40]!r}, which is not a price; it is left out", id=product.handle)
    return amounts


def _options(product: _Product) -> Iterator[tuple[str, list[str]]]:
    """Yield each option's name, such as color or size, and its values; without options a product has one, Title."""
    for number in _OPTIONS:
        name, values = product.first(f"option{number}_name"), product.all(f"option{number}_value")
        if name and values and values != ["Default Title"]:
            yield column_key(name), values


def _in_stock(product: _Product) -> bool | None:
    """Return whether any variant can be bought; None where the export does not say."""
    answers = [answer for _, row in product.rows if (answer := _is_available(row)) is not None]
    return any(answers) if answers else None


def _is_available(row: Row) -> bool | None:
    if not any(first_text(row.get(key)) for key in ("variant_sku", "variant_price", "option1_value")):
        return None  # the row of a further image
    quantity = first_text(row.get("variant_inventory_qty"))
    if (first_text(row.get("variant_inventory_policy")) or "").lower() in {"continue", "true"}:
        return True
    if first_text(row.get("variant_inventory_tracker")) is None and "variant_inventory_tracker" in row:
        return True  # stock is not tracked
    if quantity is None or not re.fullmatch(r"-?\d{1,12}", quantity, re.ASCII):
        return None
    return int(quantity) > 0


def _other_attributes(product: _Product) -> Row:
    """Return the shop's own columns, metafields, and what the export says for Google."""
    keys = dict.fromkeys(key for _, row in product.rows for key in row if key not in _KNOWN and not _IGNORED.match(key))
    return {_attribute_name(key): _parse_attribute(key, product.first(key)) for key in keys}


def _attribute_name(key: str) -> str:
    metafield = _METAFIELD.fullmatch(key)
    return metafield["name"] if metafield else key.removeprefix(_GOOGLE)


def _parse_attribute(key: str, text: str | None) -> Value:
    if key == f"{_GOOGLE}google_product_category":
        return split_categories(text)
    if text and _METAFIELD.fullmatch(key) and ";" in text:
        return unwrap_single([part.strip() for part in text.split(";") if part.strip()])
    return text
