"""Preprocessing by Pillow and numpy: open_clip's own transform is the oracle, to the byte and to the bit."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import EncoderError

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def noise_image(height, width):
    pixels = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def open_clip_steps(config):
    """The steps of open_clip's transform: those that give bytes, and those that give values."""
    steps = image_transform_v2(config, is_train=False).transforms
    return steps[:-2], steps[-2:]


def apply(steps, value):
    for step in steps:
        value = step(value)
    return value


def assert_equal_to_open_clip(config, image):
    preprocessing = Preprocessing.from_config(asdict(config))
    to_bytes, to_values = open_clip_steps(config)
    theirs = apply(to_bytes, image)
    ours = preprocessing.prepare(image)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, np.asarray(theirs))
    values = preprocessing.normalize(np.stack([ours, ours[::-1]]))
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert np.array_equal(values[0], apply(to_values, theirs).numpy())


SIDES = st.integers(1, 90)
CONFIGS = st.builds(
    PreprocessCfg,
    size=st.integers(1, 40) | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    interpolation=st.sampled_from(["bicubic", "bilinear", "random"]),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    fill_color=st.integers(0, 255) | st.tuples(*[st.integers(0, 255)] * 3),
    mean=st.sampled_from([PreprocessCfg.mean, HALF["mean"]]),
)


def vanishes(config, height, width):
    """Whether a side would be resized to nothing, where open_clip fails."""
    sizes = np.broadcast_to(config.size, 2)
    ratio = max(height / sizes[0], width / sizes[1])
    return config.resize_mode == "longest" and 0 in {round(height / ratio), round(width / ratio)}


@settings(max_examples=200, deadline=None)
@given(config=CONFIGS, height=SIDES, width=SIDES)
def test_small_images_are_prepared_and_normalised_as_open_clip_does(config, height, width):
    if not vanishes(config, height, width):
        assert_equal_to_open_clip(config, noise_image(height, width))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [224, (256, 192), (97, 224)])
@pytest.mark.parametrize(("height", "width"), [(1, 500), (224, 225), (97, 224), (641, 480)])
def test_photographs_of_usual_and_odd_sizes_are_prepared_as_open_clip_does(mode, size, height, width):
    config = PreprocessCfg(size=size, resize_mode=mode, fill_color=200, interpolation="bilinear", **HALF)
    if not vanishes(config, height, width):
        assert_equal_to_open_clip(config, noise_image(height, width))


def test_every_byte_is_normalised_to_the_last_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels] * 3, axis=-1))
    for mean, std in [(PreprocessCfg.mean, PreprocessCfg.std), HALF.values(), ((0, 0, 0), (1, 1, 1))]:
        assert_equal_to_open_clip(PreprocessCfg(size=16, mean=mean, std=std), image)


def test_a_thread_of_an_image_keeps_a_pixel_where_open_clip_fails():
    preprocessing = Preprocessing.from_config(asdict(PreprocessCfg(size=8, resize_mode="longest", fill_color=9)))
    pixels = preprocessing.prepare(Image.new("RGB", (1000, 1), (50, 60, 70)))
    assert pixels[3].tolist() == [[50, 60, 70]] * 8
    assert (np.delete(pixels, 3, axis=0) == 9).all()


def test_no_image_gives_no_values():
    preprocessing = Preprocessing.from_config(asdict(PreprocessCfg(size=(4, 6))))
    assert preprocessing.normalize(np.empty((0, 4, 6, 3), np.uint8)).shape == (0, 3, 4, 6)


def test_a_config_goes_through_json_and_back():
    preprocessing = Preprocessing.from_config(asdict(PreprocessCfg(size=[4, 6], fill_color=[1, 2, 3], mean=[0.5])))
    assert preprocessing.size == (4, 6)
    assert preprocessing.fill_color == (1, 2, 3)
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(preprocessing).items()}
    assert Preprocessing.from_config(lists) == preprocessing


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interpolation": "nearest"}, "no interpolation 'nearest'. Use bicubic, random, bilinear."),
        ({"resize_mode": "crop"}, "no resize mode 'crop'. Use shortest, longest, squash."),
    ],
)
def test_what_open_clip_does_not_know_is_refused(change, reason):
    with pytest.raises(EncoderError, match=reason):
        Preprocessing.from_config(asdict(PreprocessCfg()) | change)
