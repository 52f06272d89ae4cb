"""What Pillow does not check, or checks too late: scans without end, checksums, texts that unpack, frame sizes."""

import zlib
from collections.abc import Iterator
from typing import NoReturn

from retrieval.errors import ImageError

# libjpeg works through the whole picture at every scan. No program writes more than a dozen; the fuzzers of
# libjpeg-turbo give up at the same number.
_MAX_SCANS = 500


def check_jpeg_scans(data: bytes) -> None:
    """Refuse a progressive JPEG of absurdly many scans: 100 kB of them can keep a processor busy for minutes.

    Raises:
        ImageError: it has too many.
    """
    scans = data.count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise ImageError(f"is a JPEG of {scans:,} scans; the cap is {_MAX_SCANS}")


def strip_png(data: bytes) -> bytes:
    """The PNG with only those chunks that its pixels need.

    Pillow does not compare the checksums of pixel data, unpacks texts and colour profiles up to 64 MB and gives up on
    pictures with larger ones, and warns of odd animations.

    Raises:
        ImageError: a chunk that the pixels need is cut off, or its checksum is wrong.
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
    """Name, start and end of each chunk, its length and checksum included, up to IEND."""
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
    """Width and height of a GIF's first frame, its place on the screen included.

    Pillow takes memory for a frame while it opens the file, and a frame may be larger than the screen that the header
    states.

    Raises:
        ImageError: there is no frame.
    """
    width, height = _pair(data, 6)
    position = 13 + _palette_bytes(data[10:11])
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


def _palette_bytes(flags: bytes) -> int:
    """Bytes of the colour table that the flags announce: 3 for each of 2, 4, ... 256 colours, or none."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _pair(data: bytes, start: int) -> tuple[int, int]:
    return int.from_bytes(data[start : start + 2], "little"), int.from_bytes(data[start + 2 : start + 4], "little")


def _no_frame() -> NoReturn:
    raise ImageError("is a damaged GIF (no picture in it)")
