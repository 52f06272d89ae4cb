import zlib
from io import BytesIO

import numpy as np
import pytest
from hostile_files import encoded, picture, png_chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retrieval.errors import ImageError
from retrieval.images import open_image

LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "BMP": {}, "PPM": {}}


def pixels(data, **options) -> np.ndarray:
    return np.asarray(open_image(data, **options)).astype(int)


def reason(data, **options) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_decode_exactly_whatever_the_file_name(kind, tmp_path):
    image = picture()
    path = tmp_path / "wrong.JPG"
    path.write_bytes(encoded(image, kind, **LOSSLESS[kind]))
    assert (pixels(path) == np.asarray(image)).all()


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_decode_closely(kind):
    assert abs(pixels(encoded(picture(), kind, quality=95)) - np.asarray(picture())).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_exif_rotation_is_undone(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = picture()
    expected.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(expected)).astype(int)
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    options |= {"lossless": True} if kind == "WEBP" else {"quality": 95}
    upright = pixels(encoded(picture(), kind, **options))
    assert upright.shape == expected.shape
    assert abs(upright - expected).mean() < 8


def test_transparent_pixels_are_blended_over_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 0, 0), (200, 0, 0, 128), (200, 0, 0, 255)])
    expected = [[255, 255, 255], [227, 127, 127], [200, 0, 0]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert abs(pixels(encoded(image, kind, **options))[0] - expected).max() <= 1, kind


def test_transparency_of_palettes_and_gray_is_blended_over_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, "PNG"))[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert pixels(encoded(palette, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    assert pixels(encoded(palette, "PNG", transparency=b"\x00\x80"))[0].tolist() == [[255, 255, 255], [147, 152, 157]]
    assert pixels(encoded(palette, "GIF", transparency=1))[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(100, 0), (100, 255)])
    assert pixels(encoded(grey, "PNG"))[0].tolist() == [[255] * 3, [100] * 3]
    keyed = Image.new("RGB", (2, 1))
    keyed.putdata([(1, 2, 3), (4, 5, 6)])
    assert pixels(encoded(keyed, "PNG", transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [4, 5, 6]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), [0, 127, 255]),
        (np.array([[0, 32768, 65535]], ">u2"), [0, 127, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 127, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 127, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 127, 255]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, 0.5, np.inf]], np.float32), [0, 127, 0]),
    ],
)
def test_wide_gray_values_are_scaled_and_not_clipped_at_255(values, expected):
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


def test_sixteen_bit_png_is_scaled():
    image = Image.fromarray(np.array([[0, 257 * 7, 65535]], np.uint16))
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[0] * 3, [7] * 3, [255] * 3]


def test_bilevel_and_cmyk_pictures_are_converted_to_rgb():
    assert pixels(encoded(Image.new("1", (4, 4), 1), "PNG")).min() == 255
    for kind in ("JPEG", "TIFF"):  # Photoshop and Pillow store CMYK inverted in a JPEG
        red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
        assert abs(pixels(encoded(red, kind))[8, 8] - [200, 30, 40]).max() < 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_animations_decode_to_their_first_frame(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert abs(pixels(data) - [255, 0, 0]).max() < 6


def test_pictures_with_damaged_metadata_decode():
    """Broken EXIF, a text that unpacks to 30 MB, a wrong checksum of a comment, an animation header without frames."""
    expected = np.asarray(picture())
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xee" * 40
    plain = encoded(picture(), "PNG")
    comment = bytearray(png_chunk(b"tEXt", b"Comment\0hello"))
    comment[-1] ^= 1
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(30_000_000)))
    frames = png_chunk(b"acTL", bytes(8)) * 2
    for extra in (bytes(comment), text, frames, png_chunk(b"eXIf", exif[6:])):
        assert (pixels(plain[:33] + extra + plain[33:]) == expected).all()
    assert pixels(encoded(picture(), "JPEG", exif=exif)).shape == (64, 96, 3)


def test_heic_decodes_where_pillow_heif_is_installed():
    heif = pytest.importorskip("pillow_heif")
    file = BytesIO()
    heif.from_pillow(picture()).save(file, quality=95)
    assert abs(pixels(file.getvalue()) - np.asarray(picture())).mean() < 8


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), st.integers(8, 64), st.sampled_from(["JPEG", "PNG"]))
def test_scaled_decoding_keeps_the_aspect_ratio_and_at_least_three_halves_of_the_size(sides, size, kind):
    width, height = sides
    data = encoded(Image.new("RGB", (width, height), "teal"), kind)
    image = open_image(data, size=size)
    assert min(image.size) >= min(width, height, 1.5 * size)
    assert max(image.size) <= 32 * min(image.size)
    if min(width, height) > 2 * size and max(width, height) <= 32 * min(width, height):
        assert image.width / image.height == pytest.approx(width / height, rel=0.1)


def test_without_a_size_every_pixel_is_decoded():
    assert open_image(encoded(picture(801, 603), "JPEG")).size == (801, 603)


def test_extremely_elongated_pictures_are_cropped_to_their_middle_for_a_model():
    column = Image.new("L", (1, 20_000))
    column.paste(255, (0, 9_990, 1, 10_010))
    data = encoded(column, "PNG")
    assert open_image(data).size == (1, 20_000)
    assert open_image(data, size=224).size == (1, 32)
    assert pixels(data, size=224).mean() > 150
    assert open_image(encoded(Image.new("RGB", (20_000, 10)), "JPEG"), size=224).size == (320, 10)
    assert open_image(encoded(Image.new("RGB", (1, 1)), "GIF"), size=224).size == (1, 1)


def test_all_real_pictures_decode(shared_data):
    paths = [path for name in ("luma", "coco_open", "recipes") for path in sorted(shared_data(name).glob("images/*"))]
    sizes = [open_image(path, size=64).size for path in paths]
    assert len(sizes) == len(paths) > 900
    assert min(map(min, sizes)) >= 64
