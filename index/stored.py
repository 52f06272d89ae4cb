"""The file of an index: FAISS's own bytes first, so that they can be memory-mapped, then what is known about them.

    FAISS's bytes | which slots are live, a bit each | which are inside the structure, a bit each | JSON | tail

The tail says how long the JSON is and carries a checksum of it; the JSON carries checksums of the rest. A structure up
to 64 MB is checked whole when it is opened; of a larger one the length, both ends and 64 pages between, because
reading all of it would cost what the memory map saves. The file is written aside and renamed: it is whole or absent.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from index.errors import SpecError, StoredIndexError
from index.spec import IndexSpec
from index.vectors import Mask, Rows, no_readahead

MAGIC = b"rows-idx"
FORMAT = 1
TAIL = struct.Struct("<QI8s")  # length and checksum of the JSON, magic
WHOLE = 64 << 20  # bytes up to which a structure is checked whole
END, PAGE, PAGES = 64 << 10, 4096, 64
SAMPLED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file says of an index.

    Attributes:
        spec: as it was asked for or chosen.
        live: which slots are not removed, (slots,).
        inside: which slots the structure holds, (slots,).
        structured: the sizes of the structure; None where there is none.
        trained: how many rows trained it.
        covered: the slots before this one are inside it or were dead.
    """

    spec: IndexSpec
    live: Mask
    inside: Mask
    structured: IndexSpec | None
    trained: int
    covered: int


def write_stored(path: Path, stored: Stored, rows: Rows, *, structure: Callable[[Path], None] | None) -> None:
    """Write aside, sync, and rename to `path`; `structure` writes FAISS's bytes to the path that it is given.

    Raises:
        StoredIndexError: the folder or the disk does not take it.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.unlink(missing_ok=True)
        if structure is not None:
            structure(aside)
        with aside.open("ab") as file:
            _append(file, _facts(aside, stored, rows), stored)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # RuntimeError is FAISS's
        aside.unlink(missing_ok=True)
        raise StoredIndexError(
            f"the index could not be written to {path} ({error}): make room and save again"
        ) from error


def read_stored(path: Path, rows: Rows) -> Stored:
    """Return what the file at `path` says, having checked it and that it was made of the first of these rows.

    Raises:
        StoredIndexError: it is missing, damaged, of a newer format, or of other rows.
    """
    try:
        with path.open("rb") as file:
            facts, live, inside = _read(file)
    except OSError as error:
        raise StoredIndexError(f"no index can be read from {path} ({error}): build it again") from error
    except (_DamageError, ValueError, KeyError, TypeError, struct.error) as error:
        raise StoredIndexError(f"{path} is damaged ({error}): delete it and build it again") from error
    if rows.shape[1] != facts["dimension"] or len(rows) < len(live):
        known = f"{len(live):,} rows of {facts['dimension']}"
        raise StoredIndexError(f"{path} is of {known}, not of {len(rows):,} of {rows.shape[1]}: build it again")
    if facts["rows"] != rows_checksum(rows[: len(live)]):
        raise StoredIndexError(f"{path} was made of other vectors: delete it and build it again")
    structured = None if facts["structured"] is None else _spec(facts["structured"], path)
    return Stored(_spec(facts["spec"], path), live, inside, structured, facts["trained"], facts["covered"])


def rows_checksum(rows: Rows) -> int:
    """Return a checksum of 64 rows from first to last: it tells other vectors apart without reading all of them."""
    checksum = 0
    with no_readahead(rows):
        for place in np.unique(np.linspace(0, len(rows) - 1, SAMPLED_ROWS).astype(np.int64)) if len(rows) else ():
            checksum = zlib.crc32(rows[place].tobytes(), checksum)
    return checksum


class _DamageError(Exception):
    """A checksum or a length that is not as written."""


def _facts(aside: Path, stored: Stored, rows: Rows) -> dict[str, Any]:
    size = aside.stat().st_size if aside.exists() else 0
    checksum = 0
    if size:
        with aside.open("rb") as file:
            checksum = _structure_checksum(file, size)
    return {
        "format": FORMAT,
        "spec": asdict(stored.spec),
        "structured": None if stored.structured is None else asdict(stored.structured),
        "trained": stored.trained,
        "dimension": rows.shape[1],
        "slots": len(stored.live),
        "covered": stored.covered,
        "rows": rows_checksum(rows[: len(stored.live)]),
        "structure_bytes": size,
        "structure": checksum,
        "masks": zlib.crc32(_bits(stored)),
    }


def _append(file: BinaryIO, facts: dict[str, Any], stored: Stored) -> None:
    text = json.dumps(facts).encode()
    file.write(_bits(stored) + text + TAIL.pack(len(text), zlib.crc32(text), MAGIC))


def _bits(stored: Stored) -> bytes:
    return np.packbits(stored.live).tobytes() + np.packbits(stored.inside).tobytes()


def _read(file: BinaryIO) -> tuple[dict[str, Any], Mask, Mask]:
    size = file.seek(0, os.SEEK_END)
    _check(size >= TAIL.size, "too short")
    file.seek(size - TAIL.size)
    length, checksum, magic = TAIL.unpack(file.read(TAIL.size))
    _check(magic == MAGIC and length <= size - TAIL.size, "its end is missing")
    file.seek(size - TAIL.size - length)
    text = file.read(length)
    _check(zlib.crc32(text) == checksum, "its description does not match its checksum")
    facts: dict[str, Any] = json.loads(text)
    if facts["format"] != FORMAT:
        raise _DamageError(f"its format is {facts['format']}, and this version reads {FORMAT}")
    mask_bytes = -(-facts["slots"] // 8)
    whole = facts["structure_bytes"] + 2 * mask_bytes + length + TAIL.size
    _check(whole == size, f"{size:,} bytes where {whole:,} were written")
    file.seek(facts["structure_bytes"])
    bits = file.read(2 * mask_bytes)
    _check(zlib.crc32(bits) == facts["masks"], "its masks do not match their checksum")
    _check(_structure_checksum(file, facts["structure_bytes"]) == facts["structure"], "FAISS's part is not as written")
    return facts, _mask(bits[:mask_bytes], facts["slots"]), _mask(bits[mask_bytes:], facts["slots"])


def _mask(bits: bytes, count: int) -> Mask:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(np.bool_)


def _structure_checksum(file: BinaryIO, size: int) -> int:
    if size > WHOLE and hasattr(os, "posix_fadvise"):  # else the pages between bring megabytes along with them
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_RANDOM)
    checksum = 0
    for start, length in _checked_parts(size):
        file.seek(start)
        checksum = zlib.crc32(file.read(length), checksum)
    return checksum


def _checked_parts(size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of what is checked of a structure of `size` bytes."""
    if size <= WHOLE:
        yield from ((start, min(1 << 20, size - start)) for start in range(0, size, 1 << 20))
        return
    yield 0, END
    yield from ((size * page // (PAGES + 1), PAGE) for page in range(1, PAGES + 1))
    yield size - END, END


def _spec(facts: dict[str, Any], path: Path) -> IndexSpec:
    known = {field.name for field in fields(IndexSpec)}
    try:
        return IndexSpec(**{name: value for name, value in facts.items() if name in known})
    except (SpecError, TypeError) as error:
        raise StoredIndexError(f"{path} names an index that cannot be ({error}): build it again") from error


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not holds:
        raise _DamageError(otherwise)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last: a file's sync does not reach its folder's entry."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
