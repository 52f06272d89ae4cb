"""Forty files that no program should choke on, each with a piece of the reason it is refused for, and ten good ones."""

import os
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int = 96, height: int = 64, *, seed: int = 0) -> Image.Image:
    """A small picture of smooth colours with some noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-8, 9, (height, width, 3))
    return Image.fromarray((np.asarray(coarse, np.int16) + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """Bytes of a picture in a format."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of some chunks, whatever their sense."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def tiff(tags: dict[int, int], data: bytes = b"") -> bytes:
    """A little-endian TIFF of some whole-number tags; its data begins at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def progressive_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def _bombs() -> dict[str, tuple[bytes, str]]:
    """Small files of far too many pixels."""
    packer = zlib.compressobj()
    rows = b"".join([packer.compress(bytes(2501)) for _ in range(20_000)] + [packer.flush()])
    jpeg = bytearray(encoded(picture(), "JPEG"))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    webp = struct.pack("<I", 16_382 | 16_382 << 14)
    strip = {258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 8}
    return {
        "bomb.png": (
            png(20_000, 20_000, png_chunk(b"IDAT", rows), depth=1, colour=0),
            "has 400,000,000 pixels; the cap",
        ),
        "bomb.jpg": (bytes(jpeg), "has 4,290,250,000 pixels; the cap"),
        "bomb.gif": (
            b"GIF89a\1\0\1\0\0\0\0!\xf9\4\x09\0\0\0\0," + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\0\2\0;",
            "has 3,600,000,000 pixels; the cap",
        ),
        "bomb.webp": (
            b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f" + webp + bytes(5),
            "",
        ),
        "bomb.bmp": (
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 8, 0, 0, 0, 0)
            + bytes(8),
            "has 1,600,000,000 pixels; the cap",
        ),
        "bomb.tif": (tiff(strip | {256: 2**30, 257: 2**30}, bytes(8)), "pixels; the cap"),
        "tiles.tif": (
            tiff(
                {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 8}, bytes(8)
            ),
            "has 3,600,000,000 pixels; the cap",
        ),
        "scans.jpg": (progressive_with_scans(1000), "scans; the cap is 500"),
    }


def _damaged() -> dict[str, tuple[bytes, str]]:
    """Pictures that break off or are changed."""
    whole = picture(400, 300)
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "gif": "GIF", "tif": "TIFF", "bmp": "BMP"}
    damaged = {}
    for suffix, kind in kinds.items():
        data = encoded(whole, kind)
        damaged[f"truncated.{suffix}"] = (data[: len(data) // 2], f"is a damaged {kind}")
    checksum = bytearray(encoded(whole, "PNG"))
    checksum[-20] ^= 1
    noise = random.Random(0).randbytes(5000)
    return damaged | {
        "checksum.png": (bytes(checksum), "wrong checksum of IDAT"),
        "short.png": (png(5000, 5000, png_chunk(b"IDAT", zlib.compress(bytes(20_000)))), "is a damaged PNG"),
        "nothing.png": (png(0, 0), "is a damaged PNG"),
        "start.jpg": (b"\xff\xd8\xff\xe0", "is a damaged JPEG (it breaks off)"),
        "noise.jpg": (b"\xff\xd8\xff\xe0" + noise, "is a damaged JPEG"),
    }


def _others() -> dict[str, tuple[bytes, str]]:
    """Files that are something else than their names say."""
    return {
        "empty.jpg": (b"", "is empty (0 bytes)"),
        "text.jpg": (b"hello world, I am a text\n", "is not an image (starts with 'hello world,')"),
        "page.png": (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        "drawing.png": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing"),
        "document.pdf": (b"%PDF-1.7\n", "is a PDF document"),
        "archive.jpg": (b"PK\3\4" + bytes(40), "is a zip archive"),
        "icon.ico": (encoded(picture(), "ICO"), "is an icon"),
        "picture.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "is a JPEG 2000, which is not read"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC"),
        "movie.jpg": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(40), "is a video"),
        "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript file"),
        "x" * 251 + ".jpg": (b"long name", "is not an image"),
        "alone.txt": (b"a caption of nothing\n", "has no image of the same name"),
    }


def write_hostile_files(folder: Path) -> dict[str, str]:
    """Write forty bad files to a folder; for the name of each, what the reason against it must contain."""
    files = _bombs() | _damaged() | _others()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    outside = folder.parent / f"{folder.name}-outside.jpg"
    outside.write_bytes(encoded(picture(), "JPEG"))
    (folder / "outside.jpg").symlink_to(outside)
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "dangling.jpg").symlink_to(folder / "missing.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "huge.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff\xe0")
        file.truncate(300_000_000)  # sparse: takes no room on the disk
    return {name: fragment for name, (_, fragment) in files.items()} | {
        "outside.jpg": "is a link that leads out of the folder",
        "device.jpg": "is a link that leads out of the folder",
        "dangling.jpg": "is a broken link",
        "loop.jpg": "is a broken link",
        "folder.jpg": "is a folder",
        "pipe.jpg": "is a named pipe",
        "huge.jpg": "has 300,000,000 bytes; the cap is",
    }


def write_good_files(folder: Path) -> list[str]:
    """Write ten unusual but good pictures, most with captions beside them; their names, sorted."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    grey = Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64))
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(30_000_000), 9))
    plain = encoded(picture(seed=9), "PNG")
    files = {
        "photo.jpg": encoded(picture(400, 300), "JPEG", quality=90),
        "REALLY A PNG.JPG": encoded(picture(seed=1), "PNG"),
        "rotated.jpeg": encoded(picture(seed=2), "JPEG", exif=rotated),
        "broken exif.jpg": encoded(picture(seed=3), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xee" * 40),
        "née – 猫.webp": encoded(picture(seed=4).convert("RGBA"), "WEBP"),
        "grey.png": encoded(grey, "PNG"),
        "print.jpg": encoded(picture(seed=5).convert("CMYK"), "JPEG"),
        "moving.gif": encoded(picture(seed=6), "GIF", save_all=True, append_images=[picture(seed=7)]),
        "new.avif": encoded(picture(seed=8), "AVIF"),
        "wordy.png": plain[:33] + text + plain[33:],
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "photo.txt").write_bytes(b"\xef\xbb\xbfa photo\r\n\r\nof colours\r\n")
    (folder / "née – 猫.txt").write_text("a cat\n猫\n", encoding="utf-8")
    (folder / "moving.TXT").write_text("it moves", encoding="utf-8")
    return sorted(files)
