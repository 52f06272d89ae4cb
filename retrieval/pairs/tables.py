"""Rows of CSV, TSV, JSONL and Parquet files, each with its place in the file, and the rows that cannot be read."""

import codecs
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from retrieval.errors import PairsError
from retrieval.extras import require_extra
from retrieval.pairs.types import Skipped

Value: TypeAlias = Any  # JSON's types: text, numbers, booleans, None, and lists and dicts of them
Row: TypeAlias = dict[str, Value]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

LONGEST_FIELD = 2**24  # Python's csv stops at 131,072 characters, fewer than a page of HTML in a cell has

_MAX_DIGITS = len(str(2**63))
_PACKED_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes")


@dataclass(slots=True)
class Table:
    """The rows of a file."""

    name: str  # for messages
    path: Path = Path()
    # (place, values by column); a place is "line 7" or "row 7", both counted from 1
    rows: list[tuple[str, Row]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)  # rows that are not taken, or only in part
    notices: list[str] = field(default_factory=list)  # data that is taken, but hardly as meant
    typed: bool = True  # false where every value is text, so that types are inferred column by column
    # the column whose cells hold the images themselves; its values in `rows` are the places of their bytes, as in
    # ImageSource.member
    packed: str | None = None

    def columns(self) -> list[str]:
        """Return the names of all columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))

    def add(self, place: str, value: Value) -> None:
        """Add one parsed row; skip it where it is not an object."""
        if isinstance(value, dict):
            self.rows.append((place, value))
        else:
            self.skip(place, f"is not a JSON object but {type(value).__name__}")

    def skip(self, place: str, reason: str, *, id: str | None = None, may_hide_items: bool = True) -> None:  # noqa: A002
        """Record a row that is not taken, or only in part; without an id it may hide items, unless told otherwise."""
        row = f"{self.name} {place}"
        self.skipped.append(
            Skipped(row if id is None else f"{row} ({id})", reason, row, id, may_hide_items and id is None)
        )


def read_table(path: Path, *, name: str | None = None) -> Table:
    """Return the rows of a file with one of TABLE_SUFFIXES; `name` is what messages call it."""
    suffix = path.suffix.lower()
    table = Table(name or path.name, path, typed=suffix not in {".csv", ".tsv"})
    (_read_parquet if suffix == ".parquet" else _read_jsonl if table.typed else _read_csv)(table)
    return table


def decode(data: bytes, *, name: str) -> str:
    """Return text in UTF-8, or UTF-16 with a byte order mark, without NUL; a PairsError names a line that is not."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PairsError(
            f"{name} is not in UTF-8: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from error


def parse_json(text: str) -> Value:
    """Return the value of a JSON text: lone surrogates are replaced, integers beyond 64 bits are text, NaN is None."""
    try:
        value = json.loads(
            text,
            parse_int=lambda digits: int(digits) if len(digits) < _MAX_DIGITS else digits,
            parse_float=lambda digits: number if math.isfinite(number := float(digits)) else None,
            parse_constant=lambda _: None,
        )
        if "\\ud" not in text.lower():
            return value
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_jsonl(table: Table) -> None:
    with table.path.open("rb") as file:
        is_utf16 = file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        file.seek(0)
        lines: Iterable[bytes] = decode(file.read(), name=table.path.name).encode().splitlines() if is_utf16 else file
        for number, line in enumerate(lines, 1):
            if not (line := line.removeprefix(codecs.BOM_UTF8).strip()):
                continue
            try:
                table.add(f"line {number}", parse_json(line.decode()))
            except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are subclasses
                table.skip(f"line {number}", f"is not JSON ({error})")


def _read_csv(table: Table) -> None:
    path = table.path
    text = decode(path.read_bytes(), name=path.name)
    separators = "\t,;|" if path.suffix.lower() == ".tsv" else ",\t;|"
    with ExitStack() as stack:
        stack.callback(csv.field_size_limit, csv.field_size_limit(LONGEST_FIELD))  # of the whole process: restored
        rows = _read_csv_rows(text, table, delimiter=max(separators, key=text.partition("\n")[0].count))
        names: list[str] = []
        for name in map(str.strip, next(rows, ("", []))[1]):  # the second of a name is called name_2
            names.append(f"{name}_{names.count(name) + 1}" if name and name in names else name)
        for place, cells in rows:
            if any(cells[len(names) :]):
                table.skip(place, f"has {len(cells)} values where the header has {len(names)}")
            elif any(cells):  # a column without a name is a row index
                table.rows.append((place, {name: cell for name, cell in zip(names, cells, strict=False) if name}))


def _read_csv_rows(text: str, table: Table, *, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield place and cells of each well-formed row; of the others only their first line is skipped.

    In tab-separated files, where few programs quote a cell, a line that is not CSV is taken with its quotes as plain
    characters: Google's `"Best" shoe`. A quote that is never closed is a PairsError, since it hides all rows after it.
    """
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    number = 1
    while True:
        start, place, lines_before = file.tell(), f"line {number}", reader.line_num
        try:
            row = next(reader)
            number += reader.line_num - lines_before
        except StopIteration:
            return
        except csv.Error as error:
            file.seek(start)  # the lines that a stray quote has swallowed may be good rows
            row = file.readline().rstrip("\r\n").split(delimiter)
            number += 1
            if delimiter != "\t":
                if "end of data" in str(error):
                    lines = enumerate(io.StringIO(text, newline=""), 1)
                    last = max(n for n, line in lines if '"' in line.replace('""', ""))  # inside, quotes are doubled
                    raise PairsError(
                        f"{table.name} line {last} opens a quote that is never closed, with all rows after it inside. "
                        f"No row of the file is taken; fix that line."
                    ) from error
                table.skip(place, f"is not CSV ({error}); double a quote inside a cell, and quote the cell")
                continue
        yield place, row


def _read_parquet(table: Table) -> None:
    """Read the rows of a Parquet file without the bytes of its images, which ImageSource reads one by one."""
    with require_extra("parquet", "Reading Parquet files"):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(table.path) as file:
            plain, packed = _split_columns(file)
            table.packed = packed.split(".")[0] if packed else None
            for batch in file.iter_batches(batch_size=4096, columns=plain):
                for row in batch.to_pylist():
                    number = len(table.rows)
                    values = json.loads(json.dumps(row, default=_encode), parse_constant=lambda _: None)
                    if table.packed:
                        values[table.packed] = f"{packed}#{number}"
                    table.rows.append((f"row {number + 1}", values))
    except (ArrowException, OSError) as error:
        raise PairsError(f"{table.path} is not a Parquet file that can be read ({error}).") from error


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
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    found = [chunk for chunk in chunks if chunk.path_in_schema == column]
    return all(chunk.statistics and chunk.statistics.null_count == chunk.num_values for chunk in found)


def _encode(value: Any) -> str | float | None:
    """Encode a value that JSON does not have: times as ISO text, decimals as numbers, bytes as None."""
    return value.isoformat() if hasattr(value, "isoformat") else float(value) if isinstance(value, Decimal) else None
