"""Pictures that were decoded smaller: what a model gets of them is what it gets of the full decode."""

from dataclasses import asdict

import numpy as np
import pytest
from hostile_files import encoded, picture
from open_clip.transform import PreprocessCfg
from PIL import Image

from retrieval.encoder.preprocessing import Preprocessing
from retrieval.images import convert_image, open_image
from retrieval.images.scaled import Scaled, get_scaled

WHOLE = (403, 305)  # divided by no factor


def preprocessing(size, mode="shortest") -> Preprocessing:
    return Preprocessing.from_config(asdict(PreprocessCfg(size=size, resize_mode=mode, fill_color=90)))


def psnr(one, other) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


def with_orientation(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [96, 60, 40, 30, (20, 33)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_model_gets_nearly_the_pixels_of_the_full_decode(kind, size, mode):
    data = encoded(picture(*WHOLE), kind, quality=92)
    scaled = open_image(data, size=int(np.max(size)))
    assert min(scaled.size) < 305
    prepare = preprocessing(size, mode).prepare
    assert psnr(prepare(scaled), prepare(open_image(data))) > 40


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_place_of_the_whole_turns_with_the_picture(kind, orientation):
    """A place that is off by the part of a pixel that the scaling leaves costs 6 dB or more."""
    data = encoded(picture(*WHOLE), kind, quality=92, exif=with_orientation(orientation))
    scaled, full = open_image(data, size=40), open_image(data)
    prepare = preprocessing(40).prepare
    assert get_scaled(scaled).whole == full.size
    assert psnr(prepare(scaled), prepare(full)) > 45


@pytest.mark.parametrize("method", Image.Transpose)
def test_the_box_of_the_whole_is_transposed_as_pixels_are(method):
    pixels = np.zeros((6, 9), np.uint8)
    pixels[2:5, 1:8] = 1
    turned = np.asarray(Image.fromarray(pixels).transpose(method))
    scaled = Scaled((70, 30), (9, 6), (1, 2, 8, 5)).transpose(method.name)
    left, top, right, bottom = scaled.box
    assert scaled.pixels == turned.shape[::-1]
    assert turned[top:bottom, left:right].sum() == turned.sum() == (right - left) * (bottom - top)
    assert scaled.whole == ((30, 70) if turned.shape == (9, 6) else (70, 30))


def test_the_box_of_a_scaled_jpeg_leaves_out_the_part_of_a_pixel_that_is_empty():
    image = open_image(encoded(picture(*WHOLE), "JPEG"), size=64)
    assert get_scaled(image) == Scaled(WHOLE, (202, 153), (0, 0, 201.5, 152.5))


def test_a_picture_is_reduced_after_its_scaled_decoding_where_that_ends_at_an_eighth():
    image = open_image(encoded(Image.new("RGB", (803, 805)), "JPEG"), size=20)
    assert get_scaled(image) == Scaled((803, 805), (34, 34), (0, 0, 803 / 24, 805 / 24))


def test_a_picture_with_all_its_pixels_or_cut_after_decoding_counts_as_whole():
    data = encoded(picture(*WHOLE), "JPEG")
    scaled = open_image(data, size=64)
    assert get_scaled(open_image(data)) is None
    assert get_scaled(open_image(data, size=110)) is None
    assert get_scaled(scaled.crop((0, 0, 100, 100))) is None
    assert get_scaled(open_image(encoded(Image.new("RGB", (9_000, 200)), "PNG"), size=224)) is None
    scaled.info["retrieval.scaled"] = "a text of the file"
    assert get_scaled(scaled) is None


def test_an_open_picture_is_scaled_like_its_file_and_left_unchanged():
    data = encoded(picture(*WHOLE), "PNG")
    mine = picture(*WHOLE)
    for size in (40, None):
        converted = convert_image(mine, size=size)
        assert converted is not mine
        assert np.array_equal(converted, open_image(data, size=size))
        assert get_scaled(converted) == get_scaled(open_image(data, size=size))
    assert get_scaled(mine) is None
