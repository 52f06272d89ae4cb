"""Image files as they are sent: originals, and WebP thumbnails of a few sizes."""

from io import BytesIO

from retrieval.images import open_image
from retrieval.images.sources import ImageSource, detect_format

SIZES = (120, 240, 480, 960)
"""Longer sides of thumbnails, in pixels."""
THUMBNAIL_TYPE = "image/webp"

_QUALITY = 80


def read_original(source: ImageSource) -> tuple[bytes, str]:
    """Return an image as it is stored, and its media type by its bytes; ImageError if it is SVG, HTML or unreadable."""
    data = source.read()
    subtype = detect_format(data[:1024]).lower()
    return data, f"image/{'x-portable-anymap' if subtype == 'ppm' else subtype}"


def make_thumbnail(source: ImageSource, size: int) -> bytes:
    """Return an image as WebP, upright, over white, at most `size` pixels long; ImageError if it cannot be read."""
    image = open_image(source, size=size)
    image.thumbnail((size, size))
    file = BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()
