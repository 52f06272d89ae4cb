"""The meaning of a table's columns (image, id, captions, attributes) and the types of values that came as text."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache

from retrieval.errors import PairsError
from retrieval.pairs.layout import Record
from retrieval.pairs.tables import Row, Table, Value, parse_json

IMAGE_COLUMNS = (
    *("file_name", "filepath", "image", "image_link"),
    *("filename", "file_path", "image_path", "image_file", "image_url"),
)
_CAPTIONS = re.compile(r"(text|captions?)(_?\d+)?")
_TITLES = re.compile("title|description")

# Leading zeros, signs and bare exponents (12E45 is an article number) stay text, as do numbers beyond 64 bits.
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+([eE][+-]?\d\d?)?)?")
_MISSING = frozenset(["n/a", "null", "none", "nan", "-"])


def read_plain_records(table: Table, *, has_images: bool = True) -> Iterator[Record]:
    """Yield the record of each row of a plain table.

    Captions are the values of the columns text, caption and captions; where a row has none, its title and description.
    A table with any column of the first kind keeps title and description as attributes too. A table without a column
    that names an image is a PairsError.
    """
    names = table.columns()
    keys = {column_key(name): name for name in reversed(names)}
    image = table.packed or next((keys[key] for key in IMAGE_COLUMNS if has_images and key in keys), "")
    if has_images and not image:
        raise PairsError(
            f"{table.name} has no column that names an image, such as {', '.join(IMAGE_COLUMNS)}. "
            f"Its columns are: {', '.join(names[:20]) or 'none'}. Map one with --map image=COLUMN."
        )
    captions, titles = ([name for name in names if kind.fullmatch(column_key(name))] for kind in (_CAPTIONS, _TITLES))
    id_column, packed = (next((name for name in names if column_key(name) == key), "") for key in ("id", "attributes"))
    taken = {image, id_column, packed, *(captions or titles)}
    plain: list[Row] = [{name: value for name, value in row.items() if name not in taken} for _, row in table.rows]
    unpacked = [unpack_attributes(row.get(packed)) for _, row in table.rows]
    places = [place for place, _ in table.rows]
    infer_types(unpacked, table, places)
    if not table.typed:
        infer_types(plain, table, places)
    for (place, row), packed_attributes, attributes in zip(table.rows, unpacked, plain, strict=True):
        values = packed_attributes | attributes
        yield Record(
            place=place,
            images=(row[image],) if table.packed else tuple(parse_image_names(row.get(image))),
            id=parse_id(row.get(id_column)),
            captions=collect_texts(row.get(name) for name in captions)
            or collect_texts(row.get(name) for name in titles),
            attributes={name: value for name, value in values.items() if value is not None},
        )


@lru_cache(maxsize=4096)
def column_key(name: str) -> str:
    """Return a column's name as names are compared: "Image Link" is image_link."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def collect_texts(values: Iterable[Value]) -> tuple[str, ...]:
    """Return all texts in the values, without duplicates; lists, and JSON lists in text, are flattened."""
    return tuple(dict.fromkeys(text for value in values for text in _flatten_texts(value)))


def _flatten_texts(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        parts = _parse_list(value)
        if parts is not None:
            yield from collect_texts(parts)
        elif text := " ".join(value.replace("\0", " ").split()):
            yield text
    elif isinstance(value, (list, tuple, dict)):
        yield from collect_texts(value.values() if isinstance(value, dict) else value)
    elif value is not None and value == value:  # noqa: PLR0124 (NaN is what pandas makes of an empty cell)
        yield str(value)


def _parse_list(text: str) -> list[Value] | None:
    """Return the members of a list that a cell holds as JSON or as Python; None for any other text."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (parse_json, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return value if isinstance(value, list) else None
    return None


def parse_image_names(value: Value) -> Iterator[str]:
    """Yield the image names in a cell: one, several joined by |, a list, or Hugging Face's struct with a path."""
    if isinstance(value, str):
        parts = _parse_list(value.strip()) or [part for part in value.split("|") if part.strip()]
        yield from (part.strip() for part in parts if isinstance(part, str))
    elif isinstance(value, list):
        for part in value:
            yield from parse_image_names(part)
    elif isinstance(value, dict):  # Hugging Face's struct
        yield from parse_image_names(value.get("path"))


def parse_id(value: Value) -> str | None:
    """Return an id as text, or None for an empty cell."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, (str, int, float)) else None


def unpack_attributes(cell: Value) -> Row:
    """Return the attributes in one cell: an object, JSON text of one, or k=v,k=v (a value may contain commas)."""
    if isinstance(cell, dict):
        return dict(cell)
    if cell is None or cell == "":
        return {}
    if isinstance(cell, str) and cell.lstrip().startswith("{"):
        try:
            values: Row = parse_json(cell)
        except ValueError:
            return {"attributes": cell}
        texts = {name: value.splitlines() for name, value in values.items() if isinstance(value, str)}
        return values | {name: "|".join(filter(str.strip, lines)) for name, lines in texts.items()}  # each a list
    if isinstance(cell, str) and "=" in cell:
        parts = (part.partition("=") for part in re.split(r",(?=[^,=|]+=)", cell))
        return {name.strip(): value.strip() for name, _, value in parts if name.strip()}
    return {"attributes": cell}


def infer_types(rows: list[Row], table: Table | None = None, places: Sequence[str] = ()) -> None:
    """Convert texts to numbers, booleans and lists where all texts of their column allow it; empty ones to None.

    Among numbers n/a, null, none, nan and - are empty too. A column that is text for a few of its cells, most being
    numbers, is reported in the table's notices, with the place of the first such cell.
    """
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [value for row in rows if isinstance(value := row.get(name), str) and value]
        convert = _choose_converter(cells)
        if table is not None and convert is str and (odd := _find_odd_cell(cells)) is not None:
            place = next(place for place, row in zip(places, rows, strict=True) if row.get(name) == odd)
            table.notices.append(
                f"{table.name}: the column {name} is text, not numbers, since {place} holds {odd[:40]!r}; "
                f"fix such cells to compare it by <, >"
            )
        for row in rows:
            value = row.get(name)
            if isinstance(value, str):
                row[name] = convert(value) if value else None


def _find_odd_cell(cells: list[str]) -> str | None:
    """Return the first cell that is not a number, where most are and few different ones are not; else None.

    Sizes and article numbers are rightly text.
    """
    present = [cell for cell in cells if cell.lower() not in _MISSING]
    odd = [cell for cell in present if not _NUMBER.fullmatch(cell)]
    few = max(1, len(present) // 10)
    if not odd or len(odd) * 2 >= len(present) or len(set(odd)) > few or any(cell.isdecimal() for cell in odd):
        return None
    return odd[0]


def _choose_converter(cells: list[str]) -> Callable[[str], Value]:
    """Return a converter of the texts of a column: to JSON, to lists joined by | (as shops do), or to scalars."""
    if cells and all(cell[0] in "[{" for cell in cells):
        with suppress(ValueError):
            for cell in cells:
                parse_json(cell)
            return parse_json
    if any("|" in cell for cell in cells) and not any(re.search(r"\s\||\|\s", cell) for cell in cells):
        inner = _choose_scalar_converter([part for cell in cells for part in cell.split("|") if part])
        return lambda text: [value for part in text.split("|") if part and (value := inner(part)) is not None]
    return _choose_scalar_converter(cells)


def _choose_scalar_converter(cells: list[str]) -> Callable[[str], Value]:
    if cells and all(cell.lower() in {"true", "false"} for cell in cells):
        return lambda text: text.lower() == "true"
    present = [cell for cell in cells if cell.lower() not in _MISSING]
    if not present or not all(map(_NUMBER.fullmatch, present)):
        return str
    number = int if all(map(_INTEGER.fullmatch, present)) else float
    return lambda text: None if text.lower() in _MISSING else number(text)
