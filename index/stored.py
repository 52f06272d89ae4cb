"""The file of an index: the engine's own bytes first, so that they can be memory-mapped, then what describes them.

    engine's bytes | live slots, a bit each | indexed slots, a bit each | JSON footer | trailer

The trailer has the footer's length and checksum; the footer has the checksums of the rest. An index up to 64 MB is
checked whole when it is opened; of a larger one the length, both ends and 64 pages between, because reading all of it
would cost what the memory map saves. The file is written under another name and renamed: it is whole or absent.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from index.errors import StoredIndexError
from index.spec import IndexSpec
from index.vectors import Mask, Rows, disable_readahead, find_distinct

MAGIC = b"rows-idx"
FORMAT = 1
TRAILER = struct.Struct("<QI8s")  # length and checksum of the footer, magic
FULL_CHECK_LIMIT = 64 << 20  # bytes up to which an index is checked whole
END, PAGE, PAGES = 64 << 10, 4096, 64
SAMPLED_ROWS = 64


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """What a file says of an index."""

    spec: IndexSpec  # as the caller or `auto` chose it
    live: Mask  # which slots are not removed, (slots,)
    indexed: Mask  # which slots the candidate index holds, (slots,)
    built_spec: IndexSpec | None  # with the sizes of the candidate index; None where there is none
    trained: int  # number of rows that the candidate index was trained for
    covered: int  # every live slot before this one is indexed


def write_index_file(path: Path, stored: StoredIndex, rows: Rows, *, save: Callable[[Path], None] | None) -> None:
    """Write a new file, sync it, and rename it to `path`; `save` writes the engine's bytes to a path."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        if save is not None:
            save(new)
        with new.open("a+b") as file:
            file.write(_make_trailer(file, stored, rows))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # RuntimeError is FAISS's
        new.unlink(missing_ok=True)
        raise StoredIndexError(f"The index could not be written to {path} ({error}). Make room for it.") from error


def read_index_file(path: Path, rows: Rows) -> StoredIndex:
    """Return what the file at `path` says; a StoredIndexError if it is missing, damaged, newer, or of other rows."""
    try:
        with path.open("rb") as file:
            footer, masks = _read(file)
        slots, spec, built = footer["slots"], _parse_spec(footer["spec"]), footer["structured"]
        built_spec = None if built is None else _parse_spec(built)
    except OSError as error:
        raise StoredIndexError(f"No index can be read from {path} ({error}). Build it again.") from error
    except (ValueError, KeyError, TypeError, struct.error) as error:  # a SpecError is a ValueError
        raise StoredIndexError(f"{path} is damaged ({error}). Delete it and build it again.") from error
    if rows.shape[1] != footer["dimension"] or len(rows) < slots:
        raise StoredIndexError(
            f"{path} indexes {slots:,} rows of dimension {footer['dimension']}, not {len(rows):,} of {rows.shape[1]}. "
            "Build it again."
        )
    if footer["rows"] != checksum_rows(rows[:slots]):
        raise StoredIndexError(f"{path} was made of other vectors. Delete it and build it again.")
    live, indexed = np.unpackbits(np.frombuffer(masks, np.uint8).reshape(2, -1), axis=1, count=slots).astype(np.bool_)
    return StoredIndex(spec, live, indexed, built_spec, footer["trained"], footer["covered"])


def checksum_rows(rows: Rows) -> int:
    """Return a checksum of 64 rows from first to last: it tells other vectors apart without reading all of them."""
    checksum = 0
    with disable_readahead(rows):
        for row in find_distinct(np.linspace(0, len(rows) - 1, SAMPLED_ROWS).astype(np.int64)) if len(rows) else ():
            checksum = zlib.crc32(rows[row].tobytes(), checksum)
    return checksum


def _make_trailer(file: BinaryIO, stored: StoredIndex, rows: Rows) -> bytes:
    """Return what comes after the engine's bytes, which the file holds; the keys are those of version 0.1.0."""
    masks = np.packbits([stored.live, stored.indexed], axis=1).tobytes()
    size = file.seek(0, os.SEEK_END)
    footer = {
        "format": FORMAT,
        "spec": asdict(stored.spec),
        "structured": None if stored.built_spec is None else asdict(stored.built_spec),
        "trained": stored.trained,
        "dimension": rows.shape[1],
        "slots": len(stored.live),
        "covered": stored.covered,
        "rows": checksum_rows(rows[: len(stored.live)]),
        "structure_bytes": size,
        "structure": _checksum_engine(file, size),
        "masks": zlib.crc32(masks),
    }
    text = json.dumps(footer).encode()
    return masks + text + TRAILER.pack(len(text), zlib.crc32(text), MAGIC)


def _read(file: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Return the footer and the masks, all of the file being checked; a ValueError where it is not as written."""
    size = file.seek(0, os.SEEK_END)
    _check(size >= TRAILER.size, "too short")
    file.seek(size - TRAILER.size)
    length, checksum, magic = TRAILER.unpack(file.read(TRAILER.size))
    _check(magic == MAGIC and length <= size - TRAILER.size, "its end is missing")
    file.seek(size - TRAILER.size - length)
    text = file.read(length)
    _check(zlib.crc32(text) == checksum, "its footer does not match its checksum")
    footer: dict[str, Any] = json.loads(text)
    _check(footer["format"] == FORMAT, f"its format is {footer['format']}, and this version reads {FORMAT}")
    engine_bytes, mask_bytes = footer["structure_bytes"], 2 * -(-footer["slots"] // 8)
    expected = engine_bytes + mask_bytes + length + TRAILER.size
    _check(expected == size, f"it has {size:,} bytes, and {expected:,} were written")
    file.seek(engine_bytes)
    masks = file.read(mask_bytes)
    _check(zlib.crc32(masks) == footer["masks"], "its masks do not match their checksum")
    _check(_checksum_engine(file, engine_bytes) == footer["structure"], "the index does not match its checksum")
    return footer, masks


def _check(condition: bool, damage: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not condition:
        raise ValueError(damage)


def _checksum_engine(file: BinaryIO, size: int) -> int:
    if size > FULL_CHECK_LIMIT and hasattr(os, "posix_fadvise"):  # otherwise readahead brings megabytes for each page
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_RANDOM)
    checksum = 0
    for start, length in _list_checked_parts(size):
        file.seek(start)
        checksum = zlib.crc32(file.read(length), checksum)
    return checksum


def _list_checked_parts(size: int) -> list[tuple[int, int]]:
    """Return (start, length) of the parts to check of an engine's `size` bytes."""
    if size <= FULL_CHECK_LIMIT:
        return [(start, min(1 << 20, size - start)) for start in range(0, size, 1 << 20)]
    return [(0, END), *((size * page // (PAGES + 1), PAGE) for page in range(1, PAGES + 1)), (size - END, END)]


def _parse_spec(values: dict[str, Any]) -> IndexSpec:
    names = {field.name for field in fields(IndexSpec)}
    return IndexSpec(**{name: values[name] for name in names & values.keys()})


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable: syncing a file does not sync its folder's entry."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
