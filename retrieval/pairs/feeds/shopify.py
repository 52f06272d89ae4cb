"""Shopify's export of products: a product is all rows of one handle, its variants and images among them.

https://help.shopify.com/en/manual/products/import-export/using-csv describes the columns, which were renamed in 2025.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from retrieval.pairs.columns import column_key, infer_types
from retrieval.pairs.feeds import cells
from retrieval.pairs.feeds.cells import first_text
from retrieval.pairs.layout import Record
from retrieval.pairs.tables import Row, Table

# Names of columns since 2025, and those before:
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

# Names for `--map` beside those of the columns:
FIELDS = {
    **SYNONYMS,
    "id": "handle",
    "brand": "vendor",
    **dict.fromkeys(("image", "images"), "image_src"),
    **dict.fromkeys(("caption", "captions"), "title"),
}
_KNOWN = {
    *("handle", "title", "body_(html)", "vendor", "product_category", "type", "tags", "published", "status"),
    *("image_src", "image_position", "image_alt_text", "cost_per_item", "charge_tax", "tax_code"),
    *("weight_value_(grams)", "weight_unit_for_display", "requires_shipping", "fulfillment_service"),
}
_IGNORED = re.compile(
    r"(variant_|option\d|seo_|unit_price|included_/|price_/|compare_at_price_/|google_shopping_/_custom_product)"
)
_METAFIELD = re.compile(r".*\(product\.metafields\.[^.]+\.(?P<name>[^)]+)\)")
_GOOGLE = "google_shopping_/_"


def is_export(keys: set[str]) -> bool:
    """Return whether a table with these columns is such an export."""
    is_old = keys >= {"handle", "image_src"} and any(key.startswith("variant_") for key in keys)
    return is_old or keys >= {"url_handle", "product_image_url"}


@dataclass(frozen=True, slots=True)
class _Product:
    handle: str
    place: str
    rows: list[tuple[str, Row]]

    def first(self, key: str) -> str | None:
        """Return the first text that any row has in a column."""
        return next(iter(self.all(key)), None)

    def all(self, key: str) -> list[str]:
        """Return the distinct texts of a column, in order."""
        return cells.deduplicate(first_text(row.get(key)) or "" for _, row in self.rows)


def read_products(table: Table) -> Iterator[Record]:
    """Yield a record for each image of each product, in the order of their positions, with the product's attributes.

    Drafts, archived and unpublished products are skipped, unless `--map` drops the columns that say so.
    """
    products = [product for product in _group_rows(table) if not _is_withheld(product, table)]
    others = [_other_attributes(product) for product in products]
    infer_types(others, table, [product.place for product in products])
    for product, other in zip(products, others, strict=True):
        captions = [cells.strip_html(text) for key in ("title", "body_(html)") for text in product.all(key)[:1]]
        values = _attributes(product, other, table)
        for place, name, alt in list(_images(product)) or [(product.place, "", "")]:
            yield Record(
                place=place,
                images=(name,) if name else (),
                id=product.handle,
                captions=tuple(cells.deduplicate([*captions, cells.strip_html(alt)])),
                attributes={name: value for name, value in values.items() if value not in (None, [])},
            )


def _group_rows(table: Table) -> list[_Product]:
    products: dict[str, _Product] = {}
    for place, columns in table.rows:
        row = {SYNONYMS.get(key, key): cell for name, cell in columns.items() if (key := column_key(name))}
        handle, title = first_text(row.get("handle")), first_text(row.get("title"))
        if handle is None:
            table.skip(place, "has no handle", may_hide_items=False)
            continue
        product = products.setdefault(handle, _Product(handle, place, []))
        if title and title != (product.first("title") or title):
            table.skip(place, f"repeats the handle of {product.place} under another title", id=handle)
        else:
            product.rows.append((place, row))
    return list(products.values())


def _is_withheld(product: _Product, table: Table) -> bool:
    reason, status = "", (product.first("status") or "active").lower()
    if status != "active":
        reason = f"has the status {status}; --map status= adds products that are not active"
    elif cells.parse_boolean(product.first("published")) is False:
        reason = "is not published; --map published= adds unpublished products"
    if reason:
        table.skip(product.place, reason, id=product.handle)
    return bool(reason)


def _images(product: _Product) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and alternative text of each image: by position, then those that only a variant has."""
    named = [(place, row, name) for place, row in product.rows if (name := first_text(row.get("image_src")))]
    positions = {place: cells.parse_integer(row.get("image_position")) for place, row, _ in named}
    for place, row, name in sorted(named, key=lambda entry: (positions[entry[0]] is None, positions[entry[0]] or 0)):
        yield place, name, first_text(row.get("image_alt_text")) or ""
    seen = {name for _, _, name in named}
    for place, row in product.rows:
        if (name := first_text(row.get("variant_image")) or "") and name not in seen:
            seen.add(name)
            yield place, name, ""


def _attributes(product: _Product, other: Row, table: Table) -> Row:
    prices = _amounts(product, "variant_price", table)
    stocked = [available for _, row in product.rows if (available := _is_available(row)) is not None]
    own = {
        "brand": product.first("vendor"),
        "type": product.first("type"),
        "product_category": cells.split_categories(product.first("product_category")),
        "tags": [tag.strip() for tag in (product.first("tags") or "").split(",") if tag.strip()],
        "status": (product.first("status") or "").lower() or None,
        "price": min(prices, default=None),  # of the variants
        "price_max": max(prices, default=None),
        "compare_at_price": max(_amounts(product, "variant_compare_at_price", table), default=None),
        "skus": [sku.lstrip("'") for sku in product.all("variant_sku")],  # '007: an apostrophe against spreadsheets
        "barcodes": [code.lstrip("'") for code in product.all("variant_barcode")],
        "in_stock": any(stocked) if stocked else None,
    }
    options = {}
    for number in "123":
        name, values = product.first(f"option{number}_name"), product.all(f"option{number}_value")
        if name and values and values != ["Default Title"]:  # which a product without options has
            key = column_key(name)
            options[f"option_{key}" if key in own else key] = values
    return other | options | own


def _amounts(product: _Product, key: str, table: Table) -> list[float]:
    amounts = []
    for place, row in product.rows:
        text = first_text(row.get(key)) or ""
        if price := cells.parse_price(text):
            amounts.append(price[0])
        elif text:
            table.skip(place, f"has {key} {text[:40]!r}, which is not a price; it is left out", id=product.handle)
    return amounts


def _is_available(row: Row) -> bool | None:
    """Return whether a variant can be bought; None where the export does not say, or the row is of an image only."""
    if not any(first_text(row.get(key)) for key in ("variant_sku", "variant_price", "option1_value")):
        return None
    if (first_text(row.get("variant_inventory_policy")) or "").lower() in {"continue", "true"}:
        return True
    if first_text(row.get("variant_inventory_tracker")) is None and "variant_inventory_tracker" in row:
        return True  # stock is not tracked
    quantity = cells.parse_integer(row.get("variant_inventory_qty"))
    return None if quantity is None else quantity > 0


def _other_attributes(product: _Product) -> Row:
    """Return the shop's own columns, metafields, and what the export says for Google."""
    attributes: Row = {}
    for key in dict.fromkeys(key for _, row in product.rows for key in row):
        if key in _KNOWN or _IGNORED.match(key):
            continue
        text, metafield = product.first(key), _METAFIELD.fullmatch(key)
        name = metafield["name"] if metafield else key.removeprefix(_GOOGLE)
        if key == f"{_GOOGLE}google_product_category":
            attributes[name] = cells.split_categories(text)
        elif metafield and ";" in (text or ""):
            attributes[name] = cells.unwrap_single([part.strip() for part in (text or "").split(";") if part.strip()])
        else:
            attributes[name] = text
    return attributes
