"""Small pictures: of fixed sizes, WebP, kept in bounded memory by the content that they show."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO

from retrieval.images import content_hash, open_image
from retrieval.images.sources import ImageSource, picture_format

SIZES = (120, 240, 480, 960)
"""Longer sides of small pictures, in pixels."""

_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "HEIC": "image/heic",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "PPM": "image/x-portable-anymap",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as it is sent.

    Attributes:
        tag: Names these bytes: the hash of the picture's content, and the size.
    """

    data: bytes
    kind: str
    tag: str


class Thumbnails:
    """Small pictures by tag; the ones that were asked for longest ago go first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[str, Shown] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, tag: str) -> Shown | None:
        """Return a small picture, or None where it is not kept."""
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def put(self, small: Shown) -> None:
        """Keep a small picture, and let go of others for it."""
        with self._lock:
            before = self._kept.pop(small.tag, None)
            self.bytes += len(small.data) - (0 if before is None else len(before.data))
            self._kept[small.tag] = small
            while self.bytes > self._most and self._kept:
                self.bytes -= len(self._kept.popitem(last=False)[1].data)


def tag_of(content: str, size: int | None) -> str:
    """Return the tag of a picture of this content in this size, None for as it is."""
    return f'"{content}"' if size is None else f'"{content}-{size}"'


def original(source: ImageSource) -> Shown:
    """Return a picture as it is stored; its type is what its bytes say.

    Raises:
        ImageError: it cannot be read, or is no picture: a drawing (SVG) or a page is none.
    """
    data = source.read()
    return Shown(data, _TYPES[picture_format(data[:1024])], tag_of(content_hash(data), None))


def thumbnail(source: ImageSource, size: int) -> Shown:
    """Return a picture upright, over white, at most `size` pixels on its longer side.

    Raises:
        ImageError: it cannot be read.
    """
    data = source.read()
    small = open_image(data, size=size)
    small.thumbnail((size, size))
    file = BytesIO()
    small.save(file, "WEBP", quality=_QUALITY)
    return Shown(file.getvalue(), "image/webp", tag_of(content_hash(data), size))
