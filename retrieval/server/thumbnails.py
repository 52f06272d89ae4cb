"""Thumbnails: WebP images of a few sizes, cached in bounded memory."""

import threading
from dataclasses import dataclass
from io import BytesIO

from cachetools import LRUCache

from retrieval.images import open_image
from retrieval.images.sources import ImageSource, detect_format

SIZES = (120, 240, 480, 960)
"""Longer sides of thumbnails, in pixels."""

_MEDIA_TYPES = {
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
    """An image file in memory."""

    data: bytes
    media_type: str


class ThumbnailCache:
    """Least-recently-used cache of thumbnails by entity tag, bounded by their bytes; safe to use from threads."""

    def __init__(self, max_bytes: int) -> None:
        self._cache: LRUCache[str, EncodedImage] = LRUCache(max_bytes, getsizeof=lambda image: len(image.data))
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> float:
        """Memory of the cached thumbnails."""
        return self._cache.currsize

    def get(self, tag: str) -> EncodedImage | None:
        """Return a thumbnail, or None if it is not cached."""
        with self._lock:
            return self._cache.get(tag)

    def put(self, tag: str, thumbnail: EncodedImage) -> None:
        """Cache a thumbnail, unless it is larger than the whole cache."""
        with self._lock:
            if len(thumbnail.data) <= self._cache.maxsize:
                self._cache[tag] = thumbnail


def entity_tag(version: str, size: int | None) -> str:
    """Return the ETag of a version of an image at a size; None is the original."""
    return f'"{version}"' if size is None else f'"{version}-{size}"'


def read_original(source: ImageSource) -> EncodedImage:
    """Return an image as it is stored; its bytes decide its media type.

    Raises:
        ImageError: It cannot be read, or is no raster image, such as SVG or HTML.
    """
    data = source.read()
    return EncodedImage(data, _MEDIA_TYPES[detect_format(data[:1024])])


def make_thumbnail(source: ImageSource, size: int) -> EncodedImage:
    """Return an image upright, over white, with at most `size` pixels on its longer side.

    Raises:
        ImageError: It cannot be read.
    """
    image = open_image(source, size=size)
    image.thumbnail((size, size))
    file = BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return EncodedImage(file.getvalue(), "image/webp")
