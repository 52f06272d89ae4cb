"""What the columns of a table mean: image, id, captions, attributes; and the types of values that came as text."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from retrieval.errors import PairsError
from retrieval.pairs.tables import Row, Table, Value, parse_json

IMAGE_COLUMNS = (
    *("file_name", "filepath", "image", "image_link"),
    *("filename", "file_path", "image_path", "image_file", "image_url"),
)
_CAPTIONS = re.compile(r"(text|captions?)(_?\d+)?")
_TITLES = re.compile("title|description")


@dataclass(frozen=True, slots=True)
class Record:
    """One row, understood.

    Attributes:
        place: where it stands in its file: "line 7".
        images: names of its pictures; in a table with packed pictures the places of their bytes.
        id: its id, or None.
        captions: its texts, in order, none twice.
        attributes: what else it has, by column.
    """

    place: str
    images: tuple[str, ...]
    id: str | None
    captions: tuple[str, ...]
    attributes: Row


def records(table: Table) -> Iterator[Record]:
    """Each row of a table, understood.

    Captions are the values of the columns text, caption and captions; where a row has none, its title and description.
    A table with any column of the first kind keeps title and description as attributes too.

    Raises:
        PairsError: no column names an image.
    """
    names = table.columns()
    return _records(table, names, image=table.packed or _image_column(names, table)) if table.rows else iter(())


def describe(row: Row) -> tuple[str | None, tuple[str, ...], Row]:
    """Id, captions and attributes of a row that belongs to a picture already known."""
    if not row:
        return None, (), {}
    record = next(_records(Table("", rows=[("", row)]), list(row), image=""))
    return record.id, record.captions, record.attributes


def _records(table: Table, names: list[str], *, image: str) -> Iterator[Record]:
    captions, titles = ([name for name in names if kind.fullmatch(column_key(name))] for kind in (_CAPTIONS, _TITLES))
    id_column, packed = (next((name for name in names if column_key(name) == key), "") for key in ("id", "attributes"))
    taken = {image, id_column, packed, *(captions or titles)}
    plain: list[Row] = [{name: value for name, value in row.items() if name not in taken} for _, row in table.rows]
    unpacked = [unpack(row.get(packed)) for _, row in table.rows]
    places = [place for place, _ in table.rows]
    note_odd(type_columns(unpacked), table, places)
    if not table.typed:
        note_odd(type_columns(plain), table, places)
    for (place, row), more, attributes in zip(table.rows, unpacked, plain, strict=True):
        yield Record(
            place=place,
            images=(row[image],) if table.packed else tuple(image_names(row.get(image))),
            id=as_id(row.get(id_column)),
            captions=texts(row.get(name) for name in captions) or texts(row.get(name) for name in titles),
            attributes={name: value for name, value in (more | attributes).items() if value is not None},
        )


@lru_cache(maxsize=4096)
def column_key(name: str) -> str:
    """A column's name as it is compared: "Image Link" is image_link."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _image_column(names: list[str], table: Table) -> str:
    keys = {column_key(name): name for name in reversed(names)}
    for key in IMAGE_COLUMNS:
        if key in keys:
            return keys[key]
    wanted, there = ", ".join(IMAGE_COLUMNS), ", ".join(names[:20]) or "none"
    raise PairsError(f"{table.name} has no column that names an image, called any of {wanted}; its columns: {there}")


def texts(values: Iterable[Value]) -> tuple[str, ...]:
    """All texts in some values, lists and JSON lists in text taken apart, white space made single, none twice."""
    return tuple(dict.fromkeys(text for value in values for text in _texts(value)))


def _texts(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        parts = _listed(value)
        if parts is not None:
            yield from texts(parts)
        elif text := " ".join(value.replace("\0", " ").split()):
            yield text
    elif isinstance(value, (list, tuple, dict)):
        yield from texts(value.values() if isinstance(value, dict) else value)
    elif value is not None and value == value:  # noqa: PLR0124 (NaN is what pandas makes of an empty cell)
        yield str(value)


def _listed(text: str) -> list[Value] | None:
    """Members of a list that is written as JSON or as Python in a cell; None for any other text."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (parse_json, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return value if isinstance(value, list) else None
    return None


def image_names(value: Value) -> Iterator[str]:
    """Names of pictures in a cell: one, several joined by |, a list, or Hugging Face's struct with a path."""
    if isinstance(value, str):
        parts = _listed(value.strip()) or [part for part in value.split("|") if part.strip()]
        yield from (part.strip() for part in parts if isinstance(part, str))
    elif isinstance(value, list):
        for part in value:
            yield from image_names(part)
    elif isinstance(value, dict):  # Hugging Face's struct
        yield from image_names(value.get("path"))


def as_id(value: Value) -> str | None:
    """Text of an id, or None where there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, (str, int, float)) else None


def unpack(cell: Value) -> Row:
    """Attributes of a cell that holds several: an object, JSON text of one, or k=v,k=v (commas may be in a value)."""
    if isinstance(cell, dict):
        return dict(cell)
    if cell is None or cell == "":
        return {}
    if isinstance(cell, str) and cell.lstrip().startswith("{"):
        try:
            return {name: _joined(value) for name, value in parse_json(cell).items()}
        except ValueError:
            return {"attributes": cell}
    if isinstance(cell, str) and "=" in cell:
        parts = (part.partition("=") for part in re.split(r",(?=[^,=|]+=)", cell))
        return {name.strip(): value.strip() for name, _, value in parts if name.strip()}
    return {"attributes": cell}


def _joined(value: Value) -> Value:
    """A text of several lines as a list joined by |, as shops' JSON has them."""
    return "|".join(line for line in value.splitlines() if line.strip()) if isinstance(value, str) else value


class Odd(NamedTuple):
    """A cell that makes a column text, of which most cells are numbers; `row` is its place, from 0."""

    column: str
    row: int
    cell: str


def type_columns(rows: list[Row]) -> list[Odd]:
    """Turn texts into numbers, booleans and lists where all texts of their column allow it; empty ones into None.

    Among numbers n/a, null, none, nan and - are empty too.

    Returns:
        The first odd cell of each column that is text for a few of its cells.
    """
    found = []
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [value for row in rows if isinstance(value := row.get(name), str) and value]
        convert = _converter(cells)
        if convert is str and (odd := _odd(cells)) is not None:
            found.append(Odd(name, next(place for place, row in enumerate(rows) if row.get(name) == odd), odd))
        for row in rows:
            value = row.get(name)
            if isinstance(value, str):
                row[name] = convert(value) if value else None
    return found


def note_odd(found: Iterable[Odd], table: Table, places: Sequence[str]) -> None:
    """Note in the table which cells keep columns from being numbers; the places are those of the rows."""
    for odd in found:
        table.notices.append(
            f"the column {odd.column} is text, not numbers, for {places[odd.row]} has {odd.cell[:40]!r} in it; "
            f"mend such cells to compare it by <, >"
        )


def _odd(cells: list[str]) -> str | None:
    """The first that is no number, where most are and few kinds are not; sizes and article numbers are text rightly."""
    known = [cell for cell in cells if not _is_missing(cell)]
    odd = [cell for cell in known if not _NUMBER.fullmatch(cell)]
    few = max(1, len(known) // 10)
    if not odd or len(odd) * 2 >= len(known) or len(set(odd)) > few or any(cell.isdecimal() for cell in odd):
        return None
    return odd[0]


def _converter(cells: list[str]) -> Callable[[str], Value]:
    """What makes values of a column's texts: JSON, lists joined by | (as shops write them), or single values."""
    if cells and all(cell[0] in "[{" for cell in cells) and all(map(_is_json, cells)):
        return parse_json
    if any("|" in cell for cell in cells) and not any(re.search(r"\s\||\|\s", cell) for cell in cells):
        inner = _single([part for cell in cells for part in cell.split("|") if part])
        return lambda text: [value for part in text.split("|") if part and (value := inner(part)) is not None]
    return _single(cells)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


# Leading zeros, signs and bare exponents (12E45 is an article number) stay text, as do numbers beyond 64 bits.
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+([eE][+-]?\d\d?)?)?")


_MISSING = frozenset(["n/a", "null", "none", "nan", "-"])


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _single(cells: list[str]) -> Callable[[str], Value]:
    if cells and all(cell.lower() in {"true", "false"} for cell in cells):
        return lambda text: text.lower() == "true"
    known = [cell for cell in cells if not _is_missing(cell)]
    if not known or not all(map(_NUMBER.fullmatch, known)):
        return str
    number = int if all(map(_WHOLE.fullmatch, known)) else float
    return lambda text: None if _is_missing(text) else number(text)
