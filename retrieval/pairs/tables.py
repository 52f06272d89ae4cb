"""Rows of CSV, TSV, JSONL, JSON and Parquet files, each with its place in the file, and what could not be read."""

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

Value: TypeAlias = Any  # what JSON knows: text, numbers, booleans, None, and lists and dicts of them
Row: TypeAlias = dict[str, Value]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

LONGEST_FIELD = 2**24  # Python's csv stops at 131,072 characters, which a page of HTML in a cell exceeds


class Refusal(NamedTuple):
    """A row that is not taken, the reason, its id where that is known, and whether any item may be hidden in it."""

    place: str
    reason: str
    id: str | None
    hides: bool


@dataclass(slots=True)
class Table:
    """What a file of rows holds.

    Attributes:
        name: the file's name, for messages.
        rows: (place, values by column); a place is "line 7" or "row 7", both counted from 1.
        bad: what could not be read.
        notices: what is taken, but hardly as it was meant.
        typed: False where every value is text, so that types are to be found column by column.
        packed: name of the column whose cells hold pictures themselves; in the rows stands the place of their bytes, as
            ImageSource.member has it.
    """

    name: str
    rows: list[tuple[str, Row]] = field(default_factory=list)
    bad: list["Refusal"] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    typed: bool = True
    packed: str | None = None

    def columns(self) -> list[str]:
        """Names of the columns that any row has, in the order of their first appearance."""
        return list(dict.fromkeys(name for _, row in self.rows for name in row))

    def add(self, place: str, value: Value) -> None:
        """Add one parsed row, or name it as bad where it has no columns."""
        if isinstance(value, dict):
            self.rows.append((place, value))
        else:
            self.hide(place, f"is not a JSON object but {type(value).__name__}")

    def refuse(self, place: str, reason: str, *, id: str | None = None) -> None:  # noqa: A002 (what everyone calls it)
        """Name a row that is not taken, or what of it is not."""
        self.bad.append(Refusal(place, reason, id, hides=False))

    def hide(self, place: str, reason: str) -> None:
        """Name a row that cannot be read, so that nobody knows which item it is of."""
        self.bad.append(Refusal(place, reason, None, hides=True))


def read_table(path: Path) -> Table:
    """Rows of a file by its suffix, one of TABLE_SUFFIXES.

    Raises:
        PairsError: the file as a whole cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _read_parquet(path)
        return _read_jsonl(path) if suffix in {".jsonl", ".ndjson"} else _read_csv(path)
    except OSError as error:
        raise PairsError(f"{path} cannot be read ({error.strerror or error})") from error


def parse_json(text: str) -> Value:
    """Value of a JSON text: half characters (lone surrogates) replaced, numbers that no database holds text or None.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        value = json.loads(text, parse_int=_whole_number, parse_float=_finite, parse_constant=lambda _: None)
        if "\\ud" not in text.lower():
            return value
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) < len(str(2**63)) else digits


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def decode(data: bytes, *, name: str) -> str:
    """Text of a file in UTF-8, or in UTF-16 with its mark; without the mark and without NUL characters.

    Raises:
        PairsError: it is in another encoding; the message names the line.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PairsError(
            f"{name} is not in UTF-8: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from error


def _read_csv(path: Path) -> Table:
    text = decode(path.read_bytes(), name=path.name)
    table = Table(path.name, typed=False)
    with _long_fields():
        rows = _csv_rows(_Lines(io.StringIO(text, newline="").readlines()), table, delimiter=_delimiter(text, path))
        names = _distinct(next(rows, ("", []))[1])
        for place, cells in rows:
            if any(cells[len(names) :]):
                table.hide(place, f"has {len(cells)} values where the header has {len(names)}")
            elif any(cells):  # the nameless column is a row index
                table.rows.append((place, {name: cell for name, cell in zip(names, cells, strict=False) if name}))
    return table


def _distinct(header: list[str]) -> list[str]:
    """Names of the columns; the second of a name is called name_2."""
    names: list[str] = []
    for name in (name.strip() for name in header):
        names.append(f"{name}_{names.count(name) + 1}" if name and name in names else name)
    return names


@dataclass(slots=True)
class _Lines:
    """Lines of a text, one after the other, and from any of them again."""

    lines: list[str]
    number: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.number == len(self.lines):
            raise StopIteration
        self.number += 1
        return self.lines[self.number - 1]


def _csv_rows(lines: _Lines, table: Table, *, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Place and cells of each row that is well formed; the others are refused, up to the end of their first line.

    Between tabs, where few programs write quotes around a cell, a line that is no CSV is taken with its quotes as plain
    characters: Google's `"Best" shoe`.

    Raises:
        PairsError: a quote is never closed: all rows after it are inside of it.
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
                    f"{table.name} line {_opened(lines.lines)} opens a quote that is never closed, with all rows after "
                    f"it inside; nothing of the file is taken, mend that line"
                ) from error
            else:
                lines.number = start + 1  # what a stray quote has run into may be good rows
                table.hide(place, f"is not CSV ({error}); a quote inside of a cell is doubled, and such a cell quoted")


def _opened(lines: list[str]) -> int:
    """Number of the line with the quote that is never closed: inside of it, all others are doubled."""
    return max(number for number, line in enumerate(lines, 1) if '"' in line.replace('""', ""))


@contextmanager
def _long_fields() -> Iterator[None]:
    """Room for long cells; the limit belongs to the whole process, so it is put back."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str, path: Path) -> str:
    """What separates the header's names: what is most often in it, of equals the suffix's own."""
    header = text[: text.find("\n")] if "\n" in text else text
    return max("\t,;|" if path.suffix.lower() == ".tsv" else ",\t;|", key=header.count)


def _read_jsonl(path: Path) -> Table:
    table = Table(path.name)
    with path.open("rb") as file:
        start = file.read(2)
        wide = start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        file.seek(0)
        lines: Iterable[bytes] = decode(file.read(), name=path.name).encode().splitlines() if wide else file
        for number, line in enumerate(lines, 1):
            _add_json_line(table, f"line {number}", line.removeprefix(codecs.BOM_UTF8).strip())
    return table


def _add_json_line(table: Table, place: str, line: bytes) -> None:
    if not line:
        return
    try:
        table.add(place, parse_json(line.decode()))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are children of it
        table.hide(place, f"is not JSON ({error})")


def _read_parquet(path: Path) -> Table:
    """Rows of a Parquet file without the bytes of its pictures, which ImageSource reads one by one."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    table = Table(path.name)
    try:
        with ParquetFile(path) as file:
            plain, packed = _parquet_columns(file)
            table.packed = packed.split(".")[0] if packed else None
            for batch in file.iter_batches(batch_size=4096, columns=plain):
                for row in batch.to_pylist():
                    number = len(table.rows)
                    values = {name: as_json(value) for name, value in row.items()}
                    if table.packed:
                        values[table.packed] = f"{packed}#{number}"
                    table.rows.append((f"row {number + 1}", values))
    except (ArrowException, OSError) as error:
        raise PairsError(f"{path} is not a Parquet file that can be read ({error})") from error
    return table


def _parquet_columns(file: Any) -> tuple[list[str], str | None]:
    """Columns to read now, and the one of pictures to read later: binary, or Hugging Face's bytes and path."""
    from pyarrow import types

    plain, packed = [], {}
    for column in file.schema_arrow:
        name, kind = column.name, column.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and not _all_null(file, f"{name}.bytes"):
            packed[name] = f"{name}.bytes"
        elif types.is_binary(kind) or types.is_large_binary(kind):
            packed.update({name: name} if name.lower() in _PACKED_NAMES else {})
        else:
            plain.append(name)
    first = next((name for name in _PACKED_NAMES if name in packed), next(iter(packed), None))
    return plain, packed.get(first)


_PACKED_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes")


def _all_null(file: Any, column: str) -> bool:
    """Whether the file's own statistics say that a column is empty throughout: its pictures are named by path then."""
    for group in (file.metadata.row_group(number) for number in range(file.num_row_groups)):
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
        if chunk.statistics is None or chunk.statistics.null_count != group.num_rows:
            return False
    return True


def as_json(value: Any) -> Value:
    """The value in JSON's types: times as ISO text, decimals as numbers, bytes left out."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    if isinstance(value, dict):
        return {str(name): as_json(part) for name, part in value.items()}
    is_known = (
        value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
    )
    return value if is_known else None
