"""Rows of CSV, TSV, JSONL and Parquet files, each with its place in the file, and the rows that cannot be read."""

import codecs
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from retrieval.errors import PairsError

Value: TypeAlias = Any  # JSON's types: text, numbers, booleans, None, and lists and dicts of them
Row: TypeAlias = dict[str, Value]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

LONGEST_FIELD = 2**24  # Python's csv stops at 131,072 characters, fewer than a page of HTML in a cell has

_PACKED_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes")


class SkippedRow(NamedTuple):
    """A skipped row, the reason, its id where that is known, and whether it may hold an item of any id."""

    place: str
    reason: str
    id: str | None
    may_hide_items: bool


@dataclass(slots=True)
class Table:
    """The rows of a file.

    Attributes:
        name: The file's name, for messages.
        rows: (place, values by column); a place is "line 7" or "row 7", both counted from 1.
        skipped: Rows that are not taken, or only in part.
        notices: Data that is taken, but hardly as meant.
        typed: False where every value is text, so that types are inferred column by column.
        packed: The column whose cells hold the images themselves; its values in `rows` are the places of their bytes,
            as in ImageSource.member.
    """

    name: str
    rows: list[tuple[str, Row]] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    typed: bool = True
    packed: str | None = None

    def columns(self) -> list[str]:
        """Return the names of all columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))

    def add(self, place: str, value: Value) -> None:
        """Add one parsed row; skip it where it is not an object."""
        if isinstance(value, dict):
            self.rows.append((place, value))
        else:
            self.skip_unreadable(place, f"is not a JSON object but {type(value).__name__}")

    def skip(self, place: str, reason: str, *, id: str | None = None) -> None:  # noqa: A002 (what everyone calls it)
        """Record a row that is not taken, or only in part."""
        self.skipped.append(SkippedRow(place, reason, id, may_hide_items=False))

    def skip_unreadable(self, place: str, reason: str) -> None:
        """Record a row that cannot be read, so that it may hold any item."""
        self.skipped.append(SkippedRow(place, reason, None, may_hide_items=True))


def read_table(path: Path) -> Table:
    """Return the rows of a file with one of TABLE_SUFFIXES.

    Raises:
        PairsError: The file as a whole cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _read_parquet(path)
        return _read_jsonl(path) if suffix in {".jsonl", ".ndjson"} else _read_csv(path)
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror or error}).") from error


def decode(data: bytes, *, name: str) -> str:
    """Return text in UTF-8, or in UTF-16 with a byte order mark; without the mark and without NUL characters.

    Raises:
        PairsError: It is in another encoding; the message names the line.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PairsError(
            f"{name} is not in UTF-8: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from error


# --- JSON


def parse_json(text: str) -> Value:
    """Return the value of a JSON text: lone surrogates are replaced, integers beyond 64 bits are text, NaN is None.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        value = json.loads(text, parse_int=_parse_integer, parse_float=_parse_float, parse_constant=lambda _: None)
        if "\\ud" not in text.lower():
            return value
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_integer(digits: str) -> int | str:
    return int(digits) if len(digits) < len(str(2**63)) else digits


def _parse_float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _read_jsonl(path: Path) -> Table:
    table = Table(path.name)
    with path.open("rb") as file:
        is_utf16 = file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        file.seek(0)
        lines: Iterable[bytes] = decode(file.read(), name=path.name).encode().splitlines() if is_utf16 else file
        for number, line in enumerate(lines, 1):
            if not (line := line.removeprefix(codecs.BOM_UTF8).strip()):
                continue
            try:
                table.add(f"line {number}", parse_json(line.decode()))
            except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are subclasses
                table.skip_unreadable(f"line {number}", f"is not JSON ({error})")
    return table


# --- CSV


def _read_csv(path: Path) -> Table:
    text = decode(path.read_bytes(), name=path.name)
    table = Table(path.name, typed=False)
    with _raised_field_limit():
        rows = _read_csv_rows(
            _Lines(io.StringIO(text, newline="").readlines()), table, delimiter=_delimiter(text, path)
        )
        names = _deduplicate_names(next(rows, ("", []))[1])
        for place, cells in rows:
            if any(cells[len(names) :]):
                table.skip_unreadable(place, f"has {len(cells)} values where the header has {len(names)}")
            elif any(cells):  # a column without a name is a row index
                table.rows.append((place, {name: cell for name, cell in zip(names, cells, strict=False) if name}))
    return table


def _delimiter(text: str, path: Path) -> str:
    """Return the most frequent separator in the header; of equally frequent ones that of the suffix."""
    header = text[: text.find("\n")] if "\n" in text else text
    return max("\t,;|" if path.suffix.lower() == ".tsv" else ",\t;|", key=header.count)


def _deduplicate_names(header: list[str]) -> list[str]:
    """Return the names of the columns; the second of a name is called name_2."""
    names: list[str] = []
    for name in (name.strip() for name in header):
        names.append(f"{name}_{names.count(name) + 1}" if name and name in names else name)
    return names


@dataclass(slots=True)
class _Lines:
    """An iterator over lines that can be set back."""

    lines: list[str]
    number: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.number == len(self.lines):
            raise StopIteration
        self.number += 1
        return self.lines[self.number - 1]


def _read_csv_rows(lines: _Lines, table: Table, *, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield place and cells of each well-formed row; of the others only their first line is skipped.

    In tab-separated files, where few programs quote a cell, a line that is not CSV is taken with its quotes as plain
    characters: Google's `"Best" shoe`.

    Raises:
        PairsError: A quote is never closed: all rows after it are inside.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.number
        place = f"line {start + 1}"
        try:
            yield place, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if delimiter == "\t":
                lines.number = start + 1
                yield place, lines.lines[start].rstrip("\r\n").split(delimiter)
            elif "end of data" in str(error):
                raise PairsError(
                    f"{table.name} line {_unclosed_line(lines.lines)} opens a quote that is never closed, with all "
                    f"rows after it inside. No row of the file is taken; fix that line."
                ) from error
            else:
                lines.number = start + 1  # the lines that a stray quote has swallowed may be good rows
                reason = f"is not CSV ({error}); double a quote inside a cell, and quote the cell"
                table.skip_unreadable(place, reason)


def _unclosed_line(lines: list[str]) -> int:
    """Return the number of the line with the quote that is never closed: inside it, all others are doubled."""
    return max(number for number, line in enumerate(lines, 1) if '"' in line.replace('""', ""))


@contextmanager
def _raised_field_limit() -> Iterator[None]:
    """Allow long cells; the limit belongs to the whole process, so it is restored."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


# --- Parquet


def _read_parquet(path: Path) -> Table:
    """Return the rows of a Parquet file without the bytes of its images, which ImageSource reads one by one."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    table = Table(path.name)
    try:
        with ParquetFile(path) as file:
            plain, packed = _split_columns(file)
            table.packed = packed.split(".")[0] if packed else None
            for batch in file.iter_batches(batch_size=4096, columns=plain):
                for row in batch.to_pylist():
                    number = len(table.rows)
                    values = {name: _to_json(value) for name, value in row.items()}
                    if table.packed:
                        values[table.packed] = f"{packed}#{number}"
                    table.rows.append((f"row {number + 1}", values))
    except (ArrowException, OSError) as error:
        raise PairsError(f"{path} is not a Parquet file that can be read ({error}).") from error
    return table


def _split_columns(file: Any) -> tuple[list[str], str | None]:
    """Return the columns to read now, and that of the images: binary, or Hugging Face's struct of bytes and path."""
    from pyarrow import types

    plain, packed = [], {}
    for column in file.schema_arrow:
        name, kind = column.name, column.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and not _is_all_null(file, f"{name}.bytes"):
            packed[name] = f"{name}.bytes"
        elif types.is_binary(kind) or types.is_large_binary(kind):
            packed.update({name: name} if name.lower() in _PACKED_NAMES else {})
        else:
            plain.append(name)
    first = next((name for name in _PACKED_NAMES if name in packed), next(iter(packed), None))
    return plain, packed.get(first)


def _is_all_null(file: Any, column: str) -> bool:
    """Return whether the file's statistics say that a column is empty: its images are named by path then."""
    for group in (file.metadata.row_group(number) for number in range(file.num_row_groups)):
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
        if chunk.statistics is None or chunk.statistics.null_count != group.num_rows:
            return False
    return True


def _to_json(value: Any) -> Value:
    """Return the value in JSON's types: times as ISO text, decimals as numbers; bytes, NaN and infinities as None."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_to_json(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _to_json(part) for name, part in value.items()}
    is_json = isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_json else None
