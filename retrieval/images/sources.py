"""Where the bytes of a picture are (a file, a member of a tar shard, a cell of a Parquet file) and what they are."""

import os
import re
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from retrieval.errors import ImageError

MAX_BYTES = 128 * 2**20
"""Larger files are refused unread: a 100-megapixel JPEG stays below a third of it."""

# (offset, magic, format) of what open_image reads. BMP, PPM and the ISO family need a second look.
_PICTURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
)

# What else people have among their pictures, so that a reason can call it by its name.
_OTHER_PICTURES = (
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\0\0\2\0", "a cursor (CUR)"),
    (0, b"icns", "an icon (ICNS)"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"DDS ", "a DirectDraw texture"),
)
_NO_PICTURES = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (0, b"\x7fELF", "a program"),
    (0, b"SQLite format 3", "a database"),
)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where the bytes of one picture are.

    Attributes:
        path: the file on disk, absolute: the picture itself or the container that holds it.
        name: what people see, relative to the pairs' source: "a/b.jpg", "shard.tar/b.jpg".
        member: inside a tar shard "offset:size", in a Parquet file "column#row"; None for a picture of its own.
    """

    path: Path
    name: str
    member: str | None = None

    def read(self) -> bytes:
        """The picture's bytes.

        Raises:
            ImageError: no regular file, empty, larger than MAX_BYTES, or no picture by its first bytes (the rest of
                such a file is never read).
        """
        if self.member is None:
            return _read_file(self.path)
        column, is_cell, row = self.member.rpartition("#")
        if is_cell:
            return _cells.read(self.path, column, row=int(row))
        offset, size = self.member.split(":")
        return _read_file(self.path, offset=int(offset), size=int(size))


def detect_format(head: bytes) -> str:
    """Format of a picture by its first kilobyte: JPEG, PNG, GIF, WEBP, AVIF, HEIC, TIFF, BMP or PPM.

    The name of the file plays no part: a PNG called .jpg is a PNG.

    Raises:
        ImageError: it is nothing that open_image reads; the reason says what it looks like.
    """
    if not head:
        raise ImageError("is empty (0 bytes)")
    for offset, magic, name in _PICTURES:
        if head.startswith(magic, offset):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[456]\s", head):
        return "PPM"
    return _iso_format(head) if head[4:8] == b"ftyp" else _refuse(head)


_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}


def _iso_format(head: bytes) -> str:
    """AVIF or HEIC by the brands of an ISO media file, which videos share."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return "HEIC"
    raise ImageError("is a video (MP4 or MOV), not an image")


def _refuse(head: bytes) -> str:
    for offset, magic, name in _OTHER_PICTURES:
        if head.startswith(magic, offset):
            raise ImageError(f"is {name}, which is not read; convert it to PNG or JPEG")
    for offset, magic, name in _NO_PICTURES:
        if head.startswith(magic, offset):
            raise ImageError(f"is {name}, not an image")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text[:1000] and text[:1] == b"<":
        raise ImageError("is an SVG drawing, which has no pixels to read; export it as PNG")
    if text.startswith((b"<!doctype html", b"<html")):
        raise ImageError("is a web page (HTML), not an image")
    shown = head[:12].decode("ascii", "replace")
    start = repr(shown) if shown.isprintable() and "�" not in shown else "bytes " + head[:8].hex(" ")
    raise ImageError(f"is not an image (starts with {start})")


def read_head(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, up to count.

    Raises:
        ImageError: it cannot be read, or is a pipe, a device or a folder.
    """
    try:
        file, size = _open_regular(path)
        with file:
            return _read_fully(file, min(count, size))
    except (OSError, ValueError) as error:
        raise ImageError(_plain_reason(error)) from error


def _read_file(path: Path, *, offset: int = 0, size: int | None = None) -> bytes:
    """Bytes of a regular file, or of one stretch of it, after a look at the first kilobyte."""
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
        raise ImageError(_plain_reason(error)) from error


def _open_regular(path: Path) -> tuple[FileIO, int]:
    """The file, open, and its size in bytes."""
    handle = os.open(path, _FLAGS)
    try:
        status = os.fstat(handle)
        check_regular_file(status.st_mode)
        return FileIO(handle), status.st_size
    except BaseException:
        os.close(handle)
        raise


# Without O_NONBLOCK the opening of a named pipe waits for a writer for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _read_fully(file: FileIO, size: int) -> bytes:
    """Up to size bytes: one read returns at most 2 GiB and may return less."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def check_regular_file(mode: int) -> None:
    """Refuse what is no regular file, by the mode that stat reports.

    Raises:
        ImageError: it is a folder, a pipe, a socket or a device.
    """
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    name = next((name for test, name in kinds if test(mode)), "a device")
    raise ImageError(f"is {name}, not a file")


def _plain_reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"


class _Cells:
    """Pictures inside Parquet files, read a row group at a time; the last two groups are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[tuple[Path, int, str], int], Any] = OrderedDict()

    def read(self, path: Path, column: str, *, row: int) -> bytes:
        try:
            with self._lock:
                data: bytes | None = self._cell(path, column, row=row)
        except (OSError, ValueError, KeyError, IndexError) as error:  # pyarrow's errors are children of these
            raise ImageError(f"cannot be read from its Parquet file ({error})") from error
        if not data:
            raise ImageError("is empty (0 bytes)")
        if len(data) > MAX_BYTES:
            raise ImageError(f"has {len(data):,} bytes; the cap is {MAX_BYTES:,}")
        detect_format(data[:1024])
        return data

    def _cell(self, path: Path, column: str, *, row: int) -> Any:
        from pyarrow.parquet import ParquetFile

        known = (path, path.stat().st_mtime_ns, column)
        for (key, first), cells in self._groups.items():
            if key == known and first <= row < first + len(cells):
                return cells[row - first].as_py()
        with ParquetFile(path) as file:
            group, first = _group_of(file, row)
            cells = file.read_row_group(group, columns=[column]).flatten().column(0)
        self._groups[known, first] = cells
        while len(self._groups) > _KEPT_GROUPS:
            self._groups.popitem(last=False)
        return cells[row - first].as_py()


def _group_of(file: Any, row: int) -> tuple[int, int]:
    """Number of the row group that holds a row, and the first row of it."""
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row < first + count:
            return group, first
        first += count
    raise IndexError(f"there is no row {row}")


_KEPT_GROUPS = 2  # threads that work ahead read across one border at a time
_cells = _Cells()
