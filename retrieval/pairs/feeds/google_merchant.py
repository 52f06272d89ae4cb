"""Product feeds of Google Merchant Center: what each attribute of the specification means.

https://support.google.com/merchants/answer/7052112 lists them. Meta's catalogs have the same columns.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from retrieval.pairs.columns import column_key, infer_types, parse_image_names
from retrieval.pairs.feeds import cells
from retrieval.pairs.feeds.cells import first_text, iter_texts
from retrieval.pairs.layout import Record
from retrieval.pairs.tables import Row, Table, Value

# Names for `--map` beside those of the columns:
FIELDS = {"image": "image_link", "images": "image_link", "caption": "title", "captions": "title"}
_TEXTS = ("title", "description")
_MONEY = ("price", "sale_price")
_SECRETS = ("cost_of_goods_sold", "auto_pricing_min_price", "maximum_retail_price")  # not for customers' eyes
_NO_ATTRIBUTES = frozenset(("id", "image_link", "additional_image_link", "availability", *_TEXTS, *_MONEY, *_SECRETS))
_IN_STOCK = {"in_stock", "limited_availability", "available", "instock"}


def is_feed(keys: set[str]) -> bool:
    """Return whether a table with these columns is such a feed: it has what the specification requires."""
    keys = {key.removeprefix("g:") for key in keys}
    return keys >= {"id", "title", "image_link"} and not keys.isdisjoint({"link", "availability"})


def read_products(table: Table) -> Iterator[Record]:
    """Yield each row as an item.

    A row without an id, or with one that is taken, is skipped; an invalid price is left out and reported.
    """
    rows = [
        (place, {column_key(name).removeprefix("g:"): cell for name, cell in row.items()}) for place, row in table.rows
    ]
    specified = _NO_ATTRIBUTES | _PARSERS.keys()
    others = [{name: cell for name, cell in row.items() if name not in specified} for _, row in rows]
    if not table.typed:
        infer_types(others, table, [place for place, _ in rows])
    places: dict[str, str] = {}
    for (place, row), other in zip(rows, others, strict=True):
        identity = first_text(row.get("id"))
        if identity is None:
            table.skip(place, "has no id", may_hide_items=False)
        elif places.setdefault(identity, place) != place:
            table.skip(place, f"repeats the id of {places[identity]}, which is kept", id=identity)
        else:
            yield _to_record(identity, place, row | other, table=table)


def _to_record(identity: str, place: str, row: Row, *, table: Table) -> Record:
    prices: Row = {}
    for name in _MONEY:
        text, problem = first_text(row.get(name)), ""
        amount, currency = cells.parse_price(text or "") or (None, None)
        if text is not None and amount is None:
            problem = f"has {name} {text[:40]!r}, which is not a price such as 15.00 USD"
        elif currency and prices.setdefault("currency", currency) != currency:
            problem = f"has {name} in {currency} where its price is in {prices['currency']}"
        elif amount is not None:
            prices[name] = amount
        if problem:
            table.skip(place, f"{problem}; the item is added without it", id=identity)
    attributes = {
        name: _PARSERS[name](cell) if name in _PARSERS else cell
        for name, cell in row.items()
        if name not in _NO_ATTRIBUTES
    }
    availability = (first_text(row.get("availability")) or "").rpartition("/")[2]  # or https://schema.org/InStock
    if availability := column_key(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", availability)):
        attributes |= {"availability": availability, "in_stock": availability in _IN_STOCK}
    attributes |= prices
    images = [*parse_image_names(row.get("image_link")), *_split_links(row.get("additional_image_link"))]
    captions = (cells.strip_html(cell) for name in _TEXTS for cell in iter_texts(row.get(name)))
    return Record(
        place=place,
        images=tuple(cells.deduplicate(images)),
        id=identity,
        captions=tuple(cells.deduplicate(captions)),
        attributes={name: value for name, value in attributes.items() if value not in (None, "", [])},
    )


def _split_links(cell: Value) -> Iterator[str]:
    """Yield the image names in a cell. Commas separate them; URLs only where another begins: Cloudinary's have some."""
    for name in parse_image_names(cell):
        pieces = re.split(r",\s*(?=[a-z]+://)" if "://" in name else ",", name)
        yield from (piece.strip() for piece in pieces)


def _parse_texts(cell: Value) -> Value:
    return cells.unwrap_single(cells.deduplicate(iter_texts(cell)))


def _or_texts(parse: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """Return a parser that returns the texts of a cell where the other returns None."""
    return lambda cell: _parse_texts(cell) if (value := parse(cell)) is None else value


_PARSERS: Mapping[str, Callable[[Value], Value]] = {
    **dict.fromkeys(("google_product_category", "product_type"), cells.split_categories),
    **dict.fromkeys(("color", "material"), cells.split_slashes),
    **dict.fromkeys(("adult", "is_bundle", "identifier_exists"), _or_texts(cells.parse_boolean)),
    "multipack": _or_texts(cells.parse_integer),
    **dict.fromkeys(
        (
            *("link", "mobile_link", "canonical_link", "brand", "gtin", "mpn", "condition", "item_group_id"),
            *("age_group", "gender", "pattern", "size", "size_type", "size_system", "shipping_label"),
            *(f"custom_label_{number}" for number in range(5)),
        ),
        _parse_texts,
    ),
}
