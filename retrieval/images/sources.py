"""Read the bytes of a picture (a file, a member of a tar shard, a cell of a Parquet file) and detect its format."""

import os
import re
import stat
import threading
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from retrieval.errors import ImageError, MissingPackageError
from retrieval.extras import require_extra

MAX_BYTES = 128 * 2**20
"""Larger files are refused unread: a 100-megapixel JPEG has less than a third of it."""

# BMP, PPM and the ISO family need a second look.
_FORMATS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip

# Other files that people have among their pictures, so that a reason can name them.
_UNSUPPORTED_FORMATS = {
    b"8BPS": "a Photoshop file",
    b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\2\0": "a cursor (CUR)",
    b"icns": "an icon (ICNS)",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"v/1\x01": "an OpenEXR picture",
    b"DDS ": "a DirectDraw texture",
}
_OTHER_FILES = {
    b"%PDF": "a PDF document",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
}


@dataclass(frozen=True, slots=True)
class ImageSource:
    """The location of one picture."""

    path: Path  # the file, absolute: the picture itself or the container that holds it
    name: str  # the name to show, relative to the pairs' source: "a/b.jpg", "shard.tar/b.jpg"
    # in a tar shard "offset:size", in a Parquet file "column#row"; None where the file is the picture
    member: str | None = None

    def read(self) -> bytes:
        """Return the picture's bytes.

        Raises:
            ImageError: It is no regular file, empty, larger than MAX_BYTES, or no picture by its first bytes (the rest
                of such a file is never read).
        """
        if self.member is None:
            return _read_file(self.path)
        column, is_cell, row = self.member.rpartition("#")
        if is_cell:
            return _read_cell(self.path, column, row=int(row))
        offset, size = self.member.split(":")
        return _read_file(self.path, offset=int(offset), size=int(size))


def detect_format(head: bytes) -> str:
    """Return the format of a picture by its first kilobyte: JPEG, PNG, GIF, WEBP, AVIF, HEIC, TIFF, BMP or PPM.

    Raises:
        ImageError: `open_image` cannot read it; the reason says what it looks like.
    """
    if not head:
        raise ImageError("is empty (0 bytes)")
    if known := _match(head, _FORMATS):
        return known
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[456]\s", head):
        return "PPM"
    if head[4:8] == b"ftyp":
        return _detect_iso_format(head)
    raise ImageError(_describe_unreadable(head))


_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}


def _match(head: bytes, names: dict[bytes, str]) -> str | None:
    return next((name for magic, name in names.items() if head.startswith(magic)), None)


def _detect_iso_format(head: bytes) -> str:
    """Return AVIF or HEIC by the brands of an ISO media file, a format that videos share."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return "HEIC"
    raise ImageError("is a video (MP4 or MOV), not an image")


def _describe_unreadable(head: bytes) -> str:
    if name := _match(head, _UNSUPPORTED_FORMATS):
        return f"is {name}, which is not read; convert it to PNG or JPEG"
    if name := _match(head, _OTHER_FILES) or ("a tar archive" if head.startswith(b"ustar", 257) else None):
        return f"is {name}, not an image"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text[:1000] and text[:1] == b"<":
        return "is an SVG drawing, which has no pixels to read; export it as PNG"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page (HTML), not an image"
    shown = head[:12].decode("ascii", "replace")
    start = repr(shown) if shown.isprintable() and "�" not in shown else "bytes " + head[:8].hex(" ")
    return f"is not an image (starts with {start})"


def read_head(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a regular file, or all of a shorter one.

    Raises:
        ImageError: It cannot be read, or is a pipe, a device or a folder.
    """
    try:
        file, size = _open_regular(path)
        with file:
            return _read_fully(file, min(count, size))
    except (OSError, ValueError) as error:
        raise ImageError(_describe_error(error)) from error


def _read_file(path: Path, *, offset: int = 0, size: int | None = None) -> bytes:
    """Return the bytes of a regular file, or a part of them, once the first kilobyte is that of a picture."""
    try:
        file, available = _open_regular(path)
        with file:
            available -= offset
            size = available if size is None else size
            if size > MAX_BYTES:
                raise ImageError(f"has {size:,} bytes; the cap is {MAX_BYTES:,}")
            if size > available:
                raise ImageError(f"is cut off: {max(available, 0):,} of its {size:,} bytes are there")
            file.seek(offset)
            head = file.read(min(size, 1024))
            detect_format(head)
            return head + _read_fully(file, size - len(head))
    except (OSError, ValueError) as error:
        raise ImageError(_describe_error(error)) from error


def _open_regular(path: Path) -> tuple[FileIO, int]:
    """Return the open file and its size in bytes."""
    handle = os.open(path, _FLAGS)
    try:
        status = os.fstat(handle)
        check_regular_file(status.st_mode)
        return FileIO(handle), status.st_size
    except BaseException:
        os.close(handle)
        raise


# Without O_NONBLOCK, opening a named pipe waits for a writer forever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _read_fully(file: FileIO, size: int) -> bytes:
    """Read up to `size` bytes; a single read returns at most 2 GiB and may return less."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def check_regular_file(mode: int) -> None:
    """Check that the mode that stat reports is that of a regular file.

    Raises:
        ImageError: It is a folder, a pipe, a socket or a device.
    """
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    name = next((name for test, name in kinds if test(mode)), "a device")
    raise ImageError(f"is {name}, not a file")


def _describe_error(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"


_parquet_lock = threading.Lock()  # threads that read one row group wait for the first of them


def _read_cell(path: Path, column: str, *, row: int) -> bytes:
    try:
        with _parquet_lock:
            modified = path.stat().st_mtime_ns
            starts = _row_group_starts(path, modified)
            group = bisect_right(starts, row) - 1
            data: bytes | None = _row_group(path, modified, column, group=group)[row - starts[group]].as_py()
    except MissingPackageError as error:
        raise ImageError(f"cannot be read: {error}") from error
    except (OSError, ValueError, KeyError, IndexError) as error:  # pyarrow's errors are subclasses of these
        raise ImageError(f"cannot be read from its Parquet file ({error})") from error
    if not data:
        raise ImageError("is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise ImageError(f"has {len(data):,} bytes; the cap is {MAX_BYTES:,}")
    detect_format(data[:1024])
    return data


@lru_cache(maxsize=8)
def _row_group_starts(path: Path, _modified: int) -> list[int]:
    """Return the first row of each row group, and the number of rows."""
    with require_extra("parquet", "Reading Parquet files"):
        from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        counts = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        return list(accumulate(counts, initial=0))


@lru_cache(maxsize=2)  # threads that prefetch read across one border at a time
def _row_group(path: Path, _modified: int, column: str, *, group: int) -> Any:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).flatten().column(0)
