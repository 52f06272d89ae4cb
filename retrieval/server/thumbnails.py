"""Small pictures: of fixed sizes, WebP, kept in bounded memory."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO

from retrieval.images import open_image
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
class EncodedImage:
    """A picture as it is sent: its bytes, and their media type."""

    data: bytes
    kind: str


class ThumbnailCache:
    """Small pictures by their entity tags; the ones that were asked for longest ago go first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[str, EncodedImage] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, tag: str) -> EncodedImage | None:
        """Return a small picture, or None where it is not kept."""
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def put(self, tag: str, small: EncodedImage) -> None:
        """Keep a small picture, and let go of others for it."""
        with self._lock:
            before = self._kept.pop(tag, None)
            self.bytes += len(small.data) - (0 if before is None else len(before.data))
            self._kept[tag] = small
            while self.bytes > self._most and self._kept:
                self.bytes -= len(self._kept.popitem(last=False)[1].data)


def entity_tag(version: str, size: int | None) -> str:
    """Return the entity tag of a version of a picture in this size, None for as it is."""
    return f'"{version}"' if size is None else f'"{version}-{size}"'


def read_original(source: ImageSource) -> EncodedImage:
    """Return a picture as it is stored; its type is what its bytes say.

    Raises:
        ImageError: it cannot be read, or is no picture: a drawing (SVG) or a page is none.
    """
    data = source.read()
    return EncodedImage(data, _TYPES[picture_format(data[:1024])])


def make_thumbnail(source: ImageSource, size: int) -> EncodedImage:
    """Return a picture upright, over white, at most `size` pixels on its longer side.

    Raises:
        ImageError: it cannot be read.
    """
    small = open_image(source, size=size)
    small.thumbnail((size, size))
    file = BytesIO()
    small.save(file, "WEBP", quality=_QUALITY)
    return EncodedImage(file.getvalue(), "image/webp")
