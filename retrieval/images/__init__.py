"""Decode pictures safely and fast: a pixel cap before decoding, upright RGB, scaled decoding.

Pillow loads at the first picture, and of its decoders the one that the picture needs.
"""

from __future__ import annotations

import math
import re
import struct
import threading
import warnings
from contextlib import contextmanager, nullcontext
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import ImageError
from retrieval.images.checks import check_jpeg_scans, read_gif_size, strip_png
from retrieval.images.scaled import Scaled, not_scaled, set_scaled
from retrieval.images.sources import ImageSource, detect_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "MAX_PIXELS",
    "ImageSource",
    "check_image",
    "convert_image",
    "open_image",
]

MAX_PIXELS = 89_478_485
"""Pictures with more pixels are refused before decoding. Pillow warns from the same number on."""

# A picture is decoded to at least this many times the size that a model needs. What a model gets of 60 photographs then
# has a median PSNR of 42 dB or better against a full decode, and 35 dB at least, at any ratio of sizes up to 10; with
# 1.25 times, 39 dB, and with twice and a resize that takes the scaled picture for the whole, 34 and 20 dB.
_MARGIN = 1.5

# Of a more elongated picture a model gets only the middle: resizing the short side of 1 × 20,000 pixels to 224 would
# make a billion pixels of it.
_MAX_ASPECT = 32

# Only one picture at a time may have more decoded pixels: with 16 threads, a bound on each alone bounds little.
_LARGE_PIXELS = 2**24
_large_picture_lock = threading.Lock()

# Opened by class, never by Image.open: that tries formats that run other programs, and warns, under global settings.
_OPENERS = {
    "AVIF": "PIL.AvifImagePlugin.AvifImageFile",
    "BMP": "PIL.BmpImagePlugin.BmpImageFile",
    "GIF": "PIL.GifImagePlugin.GifImageFile",
    "JPEG": "PIL.JpegImagePlugin.JpegImageFile",
    "PNG": "PIL.PngImagePlugin.PngImageFile",
    "PPM": "PIL.PpmImagePlugin.PpmImageFile",
    "TIFF": "PIL.TiffImagePlugin.TiffImageFile",
    "WEBP": "PIL.WebPImagePlugin.WebPImageFile",
}

_TWO_BYTES = 2
_WHITE_8 = 255
_WHITE_16 = 65535

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.32, tag Orientation; the names are Pillow's
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def open_image(
    data: bytes | Path | ImageSource, *, size: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return an upright picture of mode RGB: the first frame, alpha over white, 16-bit gray scaled to 8.

    Args:
        data: The bytes of a JPEG, PNG, GIF, WebP, AVIF, TIFF, BMP, PPM or (with pillow-heif) HEIC, or their location.
        size: The least side that the caller resizes to. A picture whose least side is three times as long, or longer,
            is decoded smaller, to no less than 1.5 times the size (JPEG is decoded scaled, which makes it fast), and of
            one more than 32 times as long as wide only the middle is returned. None for every pixel.
        max_pixels: Pictures with more pixels are refused.

    Raises:
        ImageError: It is no picture, damaged, or too large; the message is the reason.
    """
    if not isinstance(data, bytes):
        data = (ImageSource(data, data.name) if isinstance(data, Path) else data).read()
    kind = detect_format(data[:1024])
    with _image_errors(kind, max_pixels):
        image = _open(data, kind, max_pixels=max_pixels)
        _check_pixels(image.size, max_pixels)
        scaled = None if size is None else _decode_scaled(image, _least_side(size))
        return _convert(image, size, scaled)


def convert_image(image: Image.Image, *, size: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return what `open_image` does for a picture that Pillow has opened, and leave that unchanged.

    Raises:
        ImageError: Its file is damaged, or it is too large or of an unsupported mode; the message is the reason.
    """
    with _image_errors(image.format or "picture", max_pixels):
        _check_pixels(image.size, max_pixels)
        converted = _convert(image, size, None)
        return converted.copy() if converted is image else converted


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
    """Check by its header alone that this is a picture, and not too large; nothing is decoded.

    Raises:
        ImageError: As `open_image` does.
    """
    kind = detect_format(data[:1024])
    with _image_errors(kind, max_pixels):
        _check_pixels(_open(data, kind, max_pixels=max_pixels).size, max_pixels)


@contextmanager
def _image_errors(kind: str, max_pixels: int) -> Iterator[None]:
    """Turn what a decoder raises into an ImageError with the reason."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("needs more memory than there is") from error
    except DecompressionBombError as error:  # some decoders check against Pillow's own cap
        raise ImageError(f"has more pixels than the cap of {max_pixels:,}") from error
    except Exception as error:  # Pillow's decoders raise nearly every built-in error on damaged files
        raise ImageError(f"is a damaged {kind} ({_describe_damage(error)})") from error


def _least_side(size: int) -> int:
    return math.ceil(_MARGIN * size)


def _decode_scaled(image: Image.Image, side: int) -> Scaled | None:
    """Have a JPEG decode to no less than this side, once it does, and return how that will be scaled."""
    whole = image.size
    draft = image.draft(None, (side, side))  # None for other formats
    return None if draft is None else Scaled(whole, image.size, draft[1])


def _convert(image: Image.Image, size: int | None, scaled: Scaled | None) -> Image.Image:
    """Return the picture upright, RGB and no larger than `size` needs: the same object where there is nothing to do."""
    with _large_picture_lock if image.width * image.height > _LARGE_PIXELS else nullcontext():
        image.load()
        orientation = _orientation(image)
        image = _to_eight_bit(image)
        scaled = scaled or not_scaled(image)
        if size is not None:
            image, scaled = _reduce(*_crop_to_middle(image, scaled), side=_least_side(size))
        image = _to_rgb(image)
    if orientation in _UPRIGHT:
        image, scaled = _transpose(image, _UPRIGHT[orientation]), scaled.transpose(_UPRIGHT[orientation])
    if scaled.pixels != scaled.whole:
        set_scaled(image, scaled)
    return image


def _transpose(image: Image.Image, method: str) -> Image.Image:
    from PIL.Image import Transpose

    return image.transpose(Transpose[method])


def _reduce(image: Image.Image, scaled: Scaled, *, side: int) -> tuple[Image.Image, Scaled]:
    """Average squares of pixels to one each, as large as leave the least side no shorter than `side`."""
    factor = min(image.size) // side
    if factor <= 1:
        return image, scaled
    left, top, right, bottom = (edge / factor for edge in scaled.box)
    image = image.reduce(factor)
    return image, Scaled(scaled.whole, image.size, (left, top, right, bottom))


def _describe_damage(error: Exception) -> str:
    """Describe the damage of a file more briefly than the decoder does."""
    text = " ".join(str(error).split())
    if isinstance(error.__cause__ or error, (struct.error, EOFError, IndexError)) or "truncated" in text.lower():
        return "it breaks off"
    return "its header makes no sense" if "not identified" in text else text[:100] or type(error).__name__


def _open(data: bytes, kind: str, *, max_pixels: int) -> Image.Image:
    """Open a picture, so that its size is known, without decoding it."""
    # One narrow filter, and not warnings.catch_warnings, which threads cannot share: the pixels do not need metadata.
    if warnings.filters[0] != _METADATA_WARNINGS:
        warnings.filterwarnings("ignore", category=UserWarning, module=_METADATA_WARNINGS[3].pattern)
    if kind == "HEIC":
        return _open_heic(data, max_pixels)
    if kind == "PNG":
        data = strip_png(data)
    elif kind == "GIF":
        _check_pixels(read_gif_size(data), max_pixels)
    image = _load_opener(kind)(BytesIO(data))
    if "progressive" in image.info:
        check_jpeg_scans(data)
    if kind == "TIFF":
        tags: dict[int, Any] = getattr(image, "tag_v2", {})
        tile = [tags.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        _check_pixels((int(tile[0]), int(tile[1])), max_pixels)
    return image


def _load_opener(kind: str) -> Callable[[BytesIO], Image.Image]:
    module, _, name = _OPENERS[kind].rpartition(".")
    opener: Callable[[BytesIO], Image.Image] = getattr(import_module(module), name)
    return opener


def _open_heic(data: bytes, max_pixels: int) -> Image.Image:
    try:
        pillow_heif = import_module("pillow_heif")
    except ImportError:
        raise ImageError("is a HEIC picture; install pillow-heif to read those, or convert it to JPEG") from None
    file = pillow_heif.open_heif(BytesIO(data))
    _check_pixels(file.size, max_pixels)
    return file.to_pillow()  # type: ignore[no-any-return]


_METADATA_WARNINGS = ("ignore", None, UserWarning, re.compile(r"PIL\.(Tiff|Png)ImagePlugin"), 0)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    if min(size) < 1:
        raise ImageError(f"has no pixels ({size[0]} × {size[1]})")
    if size[0] * size[1] > max_pixels:
        raise ImageError(f"has {size[0] * size[1]:,} pixels; the cap is {max_pixels:,}")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or it is unreadable: broken EXIF does not break a picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (hand-made EXIF raises anything from struct.error to RecursionError)
        return 1


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Return the picture with 8 bits a channel and without a palette, in a mode that reduce() and _to_rgb() support."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        from PIL.Image import fromarray

        return fromarray(_scale_gray(np.asarray(image)))
    if image.mode in {"P", "PA"} or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in {"L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}:
        raise ImageError(f"has colours of the kind {image.mode}, which is not read; convert it to RGB")
    return image


def _scale_gray(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale gray values to 0..255.

    16-bit values and fractions keep their scale; wider ones have no defined white, so they are stretched.
    """
    if values.dtype.itemsize == _TWO_BYTES:
        return (values // (_WHITE_16 // _WHITE_8)).astype(np.uint8)
    finite = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0:
        whites = (1.0,) if values.dtype.kind == "f" else ()
        low, high = 0.0, next((white for white in (*whites, _WHITE_8, _WHITE_16) if high <= white), high)
    return ((finite - low) * (_WHITE_8 / max(high - low, 1e-9))).astype(np.uint8)


def _crop_to_middle(image: Image.Image, scaled: Scaled) -> tuple[Image.Image, Scaled]:
    """Return the middle of an extremely elongated picture, and any other picture unchanged."""
    longest = _MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image, scaled
    left, top = ((side - min(side, longest)) // 2 for side in image.size)
    image = image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))
    return image, not_scaled(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as RGB, transparency over white, as shops and clip art expect."""
    if image.mode in {"La", "RGBa"}:
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode not in {"LA", "RGBA"}:
        return image if image.mode == "RGB" else image.convert("RGB")
    from PIL.Image import new

    white = new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")
