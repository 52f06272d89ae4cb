"""Checks that Pillow omits, or makes too late: endless scans, checksums, compressed texts, frame sizes."""

import zlib
from collections.abc import Iterator
from typing import NoReturn

from retrieval.errors import ImageError

# libjpeg processes the whole picture at every scan. No program writes more than a dozen; the fuzzers of libjpeg-turbo
# stop at the same number.
_MAX_SCANS = 500


def check_jpeg_scans(data: bytes) -> None:
    """Check the number of scans of a progressive JPEG: 100 kB of them can keep a processor busy for minutes.

    Raises:
        ImageError: There are too many.
    """
    scans = data.count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise ImageError(f"is a JPEG of {scans:,} scans; the cap is {_MAX_SCANS}")


def strip_png(data: bytes) -> bytes:
    """Return the PNG with only those chunks that its pixels need, once their checksums are verified.

    Pillow does not verify the checksums of pixel data, decompresses texts and color profiles up to 64 MB, fails on
    larger ones, and warns of odd animations.

    Raises:
        ImageError: A chunk that the pixels need is truncated, or its checksum is wrong.
    """
    kept, dropped = [data[:8]], False
    for name, start, end in _png_chunks(data):
        if name not in _PIXEL_CHUNKS:
            dropped = True
            continue
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"is a damaged PNG (wrong checksum of {name.decode()} at byte {start:,})")
        kept.append(data[start:end])
    return b"".join(kept) if dropped else data


_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk, with its length and checksum, up to IEND."""
    start = 8
    name = b""
    while name != b"IEND":
        name = data[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data) or not name.isalpha():
            raise ImageError(f"is a damaged PNG (it breaks off at byte {min(start, len(data)):,} of {len(data):,})")
        yield name, start, end
        start = end


def read_gif_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a GIF's first frame, with its offset on the screen.

    Pillow allocates memory for a frame while it opens the file, and a frame may be larger than the screen that the
    header states.

    Raises:
        ImageError: There is no frame.
    """
    width, height = _pair(data, 6)
    flags = data[10:11]
    palette_bytes = 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0  # 3 for each of 2, 4, ... 256 colors
    position = 13 + palette_bytes
    while data[position : position + 1] == b"!":  # extension: a label, then blocks up to one of length 0
        position += 2
        while length := data[position] if position < len(data) else _no_frame():
            position += 1 + length
        position += 1
    if data[position : position + 1] != b"," or position + 9 > len(data):
        _no_frame()
    left, top = _pair(data, position + 1)
    frame_width, frame_height = _pair(data, position + 5)
    return max(width, left + frame_width), max(height, top + frame_height)


def _pair(data: bytes, start: int) -> tuple[int, int]:
    return int.from_bytes(data[start : start + 2], "little"), int.from_bytes(data[start + 2 : start + 4], "little")


def _no_frame() -> NoReturn:
    raise ImageError("is a damaged GIF (no picture in it)")
