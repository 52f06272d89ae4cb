"""Product feeds of Google Merchant Center, as rows: what each attribute of the specification means.

https://support.google.com/merchants/answer/7052112 lists them. Meta's catalogs are written with the same columns.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from retrieval.pairs.columns import Record, column_key, image_names, note_odd, type_columns
from retrieval.pairs.feeds.cells import distinct, first, levels, one_or_all, parts, plain_text, price, slashed, truth
from retrieval.pairs.tables import Row, Table, Value

LAYOUT = "google merchant"

FIELDS = {"image": "image_link", "images": "image_link", "caption": "title", "captions": "title"}
"""Names of `--map` that are not those of the columns."""

_TEXTS = ("title", "description")
_MONEY = ("price", "sale_price")
_SECRETS = ("cost_of_goods_sold", "auto_pricing_min_price", "maximum_retail_price")  # of no concern to who searches
_NO_ATTRIBUTES = frozenset(("id", "image_link", "additional_image_link", "availability", *_TEXTS, *_MONEY, *_SECRETS))


def is_feed(keys: AbstractSet[str]) -> bool:
    """Whether a table with these columns is such a feed: it has what the specification requires."""
    known = {key.removeprefix("g:") for key in keys}
    return known >= {"id", "title", "image_link"} and not known.isdisjoint({"link", "availability"})


def read_products(table: Table) -> list[Record]:
    """Each row as an item. One without id, or with one that is taken, is refused; a bad price is left out and named."""
    rows = [(place, {_key(name): cell for name, cell in row.items()}) for place, row in table.rows]
    told = _NO_ATTRIBUTES | _MEANINGS.keys()
    others = [{name: cell for name, cell in row.items() if name not in told} for _, row in rows]
    if not table.typed:
        note_odd(type_columns(others), table, [place for place, _ in rows])
    kept = zip(_with_own_id(rows, table), others, strict=True)
    return [_record(identity, place, row | more, table=table) for (identity, place, row), more in kept if identity]


def _key(name: str) -> str:
    return column_key(name).removeprefix("g:")


def _with_own_id(rows: list[tuple[str, Row]], table: Table) -> Iterator[tuple[str | None, str, Row]]:
    """Id, place and cells of each row; the id is None where the row is refused."""
    places: dict[str, str] = {}
    for place, row in rows:
        identity = first(row.get("id"))
        if identity is None:
            table.refuse(place, "has no id")
        elif places.setdefault(identity, place) != place:
            table.refuse(place, f"repeats the id of {places[identity]}, which is kept", id=identity)
            identity = None
        yield identity, place, row


def _record(identity: str, place: str, row: Row, *, table: Table) -> Record:
    money, doubts = _money(row)
    for doubt in doubts:
        table.refuse(place, f"{doubt}; the item is taken in without it", id=identity)
    attributes = {name: _meaning(name, cell) for name, cell in row.items() if name not in _NO_ATTRIBUTES}
    values = attributes | money | _stock(row)
    captions = [plain_text(cell) for name in _TEXTS for cell in parts(row.get(name))]
    return Record(
        place=place,
        images=tuple(distinct([*image_names(row.get("image_link")), *_links(row.get("additional_image_link"))])),
        id=identity,
        captions=tuple(distinct([text for text in captions if text])),
        attributes={name: value for name, value in values.items() if value is not None and value not in ("", [])},
    )


def _links(cell: Value) -> Iterator[str]:
    """Names of pictures in a cell: a comma parts them, in URLs only where another begins (Cloudinary's have some)."""
    for name in image_names(cell):
        pieces = re.split(r",\s*(?=[a-z]+://)" if "://" in name else ",", name)
        yield from (piece.strip() for piece in pieces if piece.strip())


def _money(row: Row) -> tuple[dict[str, Value], list[str]]:
    """Prices as numbers, their currency, and what is wrong with others."""
    found: dict[str, Value] = {}
    doubts = []
    for name in _MONEY:
        said = first(row.get(name))
        amount, currency = price(said or "") or (None, None)
        if said is not None and amount is None:
            doubts.append(f"has {name} {said[:40]!r}, which is no price such as 15.00 USD")
        elif currency and found.setdefault("currency", currency) != currency:
            doubts.append(f"has {name} in {currency} where its price is in {found['currency']}")
        elif amount is not None:
            found[name] = amount
    return found, doubts


def _stock(row: Row) -> dict[str, Value]:
    """What availability says, "in stock" and https://schema.org/InStock alike as in_stock, and whether that is it."""
    said = (first(row.get("availability")) or "").rpartition("/")[2]
    name = column_key(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", said))
    return {"availability": name, "in_stock": name in _IN_STOCK} if name else {}


_IN_STOCK = {"in_stock", "limited_availability", "available", "instock"}


def _meaning(name: str, cell: Value) -> Value:
    return _MEANINGS[name](cell) if name in _MEANINGS else cell


def _texts(cell: Value) -> Value:
    return one_or_all(distinct(parts(cell)))


def _yes_or_no(cell: Value) -> Value:
    said = truth(cell)
    return _texts(cell) if said is None else said


def _count(cell: Value) -> Value:
    said = first(cell)
    return int(said) if said and re.fullmatch(r"\d{1,9}", said, re.ASCII) else said


_MEANINGS: Mapping[str, Callable[[Value], Value]] = {
    **dict.fromkeys(("google_product_category", "product_type"), levels),
    **dict.fromkeys(("color", "material"), slashed),
    **dict.fromkeys(("adult", "is_bundle", "identifier_exists"), _yes_or_no),
    "multipack": _count,
    **dict.fromkeys(
        (
            *("link", "mobile_link", "canonical_link", "brand", "gtin", "mpn", "condition", "item_group_id"),
            *("age_group", "gender", "pattern", "size", "size_type", "size_system", "shipping_label"),
            *(f"custom_label_{number}" for number in range(5)),
        ),
        _texts,
    ),
}
