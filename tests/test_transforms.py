"""Crops against open_clip's own preprocessing and by their properties; augmentation that leaves the pair true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.train.data.caption_words import split_words
from retrieval.train.data.transforms import Augmentation, TrainTransform, drop_words, jitter_colors

MIDDLE = (0.5, 0.5, 0.5, 0.5)
MODES = ["shortest", "squash", "longest"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
unit_draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4).map(np.array)


def transform(*, size=(32, 32), mode="shortest", min_scale=0.7) -> TrainTransform:
    return TrainTransform(
        height=size[0], width=size[1], resize_mode=mode, resample=Image.Resampling.BICUBIC, fill=0, min_scale=min_scale
    )


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours that differ everywhere, so that a shift or a stretch shows."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([across, down, 0.5 + 0.5 * np.sin(9 * across + 5 * down)], axis=-1)
    return Image.fromarray((255 * waves).astype(np.uint8))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(64, 64), (90, 60), (60, 90), (20, 16), (500, 70), (33, 32)])
def test_with_min_scale_1_the_crop_matches_open_clip_s_preprocessing(mode, shape):
    """Up to half a pixel, since open_clip rounds where it cuts or pads; here a pixel is 8 to 18 grey levels."""
    image, whole = photo(*shape), transform(mode=mode, min_scale=1.0)
    steps = image_transform_v2(PreprocessCfg(size=32, resize_mode=mode), is_train=False).transforms[:-2]
    expected = image
    for step in steps:
        expected = step(expected)
    ours = whole.random_resized_crop(whole.resize(image), (0.9, 0.1, 0.2, 0.3))
    assert ours.shape == (32, 32, 3)
    assert np.median(np.abs(ours.astype(int) - np.asarray(expected))) <= 4


@given(
    plan=st.builds(
        transform,
        size=st.tuples(st.sampled_from([16, 24]), st.sampled_from([16, 24])),
        mode=st.sampled_from(MODES),
        min_scale=st.floats(0.05, 1),
    ),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    chance=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
)
def test_crops_lie_inside_the_image_and_show_at_least_min_scale(plan, size, chance):
    framed = plan.resize(Image.new("RGB", size, "white"))
    left, top, right, bottom = plan._crop_box(framed.size, chance)
    assert 0 <= left < right <= framed.width
    assert 0 <= top < bottom <= framed.height
    aspect = framed.width / framed.height if plan.resize_mode == "squash" else plan.width / plan.height
    fits = min(framed.height, framed.width / aspect)
    area, possible = (right - left) * (bottom - top), fits * fits * aspect
    assert area >= plan.min_scale * possible / 1.1 - 1e-6
    assert plan.random_resized_crop(framed, chance).shape == (plan.height, plan.width, 3)


@pytest.mark.parametrize("mode", MODES)
def test_crops_do_not_flip(mode):
    image = Image.new("RGB", (80, 80), "red")
    image.paste("blue", (40, 0, 80, 40))
    plan = transform(mode=mode, min_scale=0.5)
    for chance in np.random.default_rng(0).random((50, 4)):
        corner = plan.random_resized_crop(plan.resize(image), chance)
        assert corner[2, -3, 2] > 200  # blue above on the right
        assert corner[-3, 2, 0] > 200  # red below on the left


@given(st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
def test_crops_do_not_change_colours(color, chance):
    plan = transform()
    crop = plan.random_resized_crop(plan.resize(Image.new("RGB", (50, 70), color)), chance)
    assert (crop == np.array(color, np.uint8)).all()


def test_crops_differ_between_draws():
    plan = transform()
    framed = plan.resize(photo(90, 90))
    shown = {plan.random_resized_crop(framed, chance).tobytes() for chance in np.random.default_rng(0).random((20, 4))}
    assert len(shown) == 20


def test_resized_images_keep_only_the_pixels_that_crops_need():
    assert transform(min_scale=0.64).resize(Image.new("RGB", (4000, 4000))).size == (40, 40)  # 32 / sqrt(.64)
    assert transform(min_scale=0.64).resize(Image.new("RGB", (400, 4000))).size == (
        40,
        80,
    )  # twice as long as wide at most
    assert transform(min_scale=0.64).resize(photo(20, 20)).size == (20, 20)  # never enlarged


def test_the_transform_follows_the_model_s_preprocessing():
    config = {"size": [24, 32], "resize_mode": "squash", "interpolation": "bilinear", "fill_color": 7}
    assert TrainTransform.from_preprocess(config, min_scale=0.9) == TrainTransform(
        24, 32, "squash", resample=Image.Resampling.BILINEAR, fill=7, min_scale=0.9
    )


def test_padding_has_the_model_s_fill_value():
    plan = TrainTransform(32, 32, "longest", resample=Image.Resampling.BICUBIC, fill=99, min_scale=1.0)
    crop = plan.random_resized_crop(plan.resize(Image.new("RGB", (64, 16), "red")), MIDDLE)
    assert crop[0, 0].tolist() == [99, 99, 99]
    assert crop[16, 16].tolist() == [255, 0, 0]


def test_one_positive_text_is_enough_to_forbid_an_augmentation():
    texts = ["a dog", "a dog on the left", "a red dog", "left red"]
    augmentation = Augmentation.from_captions(texts, [(0,), (0, 1), (2,), (3,)], flip=1.0, color_jitter=0.2)
    assert augmentation.may_flip.tolist() == [True, False, True, False]
    assert augmentation.may_jitter.tolist() == [True, True, False, False]


def test_images_are_flipped_with_the_given_probability_and_only_where_allowed():
    augmentation = Augmentation(0.25, 0.0, np.array([True, False]), np.array([False, False]))
    chance = np.array([0.2, 0.5, 0.5, 0.5, 0.5])
    assert np.array_equal(augmentation.apply(0, PIXELS, chance), PIXELS[:, ::-1])
    assert np.array_equal(augmentation.apply(0, PIXELS, np.full(5, 0.25)), PIXELS)
    assert np.array_equal(augmentation.apply(1, PIXELS, chance), PIXELS)


def test_colours_change_only_where_allowed():
    augmentation = Augmentation(0.0, 0.2, np.array([True, True]), np.array([True, False]))
    chance = np.full(5, 0.9)
    assert not np.array_equal(augmentation.apply(0, PIXELS, chance), PIXELS)
    assert np.array_equal(augmentation.apply(1, PIXELS, chance), PIXELS)


@given(st.floats(0, 0.5))
def test_draws_of_one_half_change_no_colour(strength):
    assert np.array_equal(jitter_colors(PIXELS, np.full(4, 0.5), strength=strength), PIXELS)


@given(unit_draws)
def test_greys_stay_grey(chance):
    gray = np.repeat(PIXELS[..., :1], 3, axis=2)
    changed = jitter_colors(gray, chance, strength=0.3).astype(int)
    assert np.ptp(changed, axis=2).max() <= 1  # of 255: rounding


def test_brightness_contrast_and_saturation_change_by_the_given_strength():
    """Brightness multiplies, contrast moves from the mean grey, saturation from each pixel's: Pillow's formulas."""
    pixels = (PIXELS // 4 + 90).astype(np.uint8)  # far from black and white, so that nothing is cut off
    values = pixels.astype(np.float64)
    gray = values @ [0.299, 0.587, 0.114]
    brighter = jitter_colors(pixels, np.array([1.0, 0.5, 0.5, 0.5]), strength=0.2)
    assert brighter == pytest.approx(1.2 * values, abs=0.51)
    contrast = jitter_colors(pixels, np.array([0.5, 1.0, 0.5, 0.5]), strength=0.2)
    assert contrast == pytest.approx(gray.mean() + 1.2 * (values - gray.mean()), abs=0.51)
    saturated = jitter_colors(pixels, np.array([0.5, 0.5, 0.0, 0.5]), strength=0.2)
    assert saturated == pytest.approx(gray[..., None] + 0.8 * (values - gray[..., None]), abs=0.51)


def test_a_hue_change_keeps_luminance_and_can_be_undone():
    pixels = (PIXELS // 4 + 90).astype(np.uint8)
    turned = jitter_colors(pixels, np.array([0.5, 0.5, 0.5, 1.0]), strength=0.5)
    back = jitter_colors(turned, np.array([0.5, 0.5, 0.5, 0.0]), strength=0.5)
    assert not np.array_equal(turned, pixels)
    assert turned @ [0.299, 0.587, 0.114] == pytest.approx(pixels @ [0.299, 0.587, 0.114], abs=1)
    assert back.astype(int) == pytest.approx(pixels.astype(int), abs=2)


@given(
    st.lists(st.sampled_from(["a", "red", "shoe", "好", "for", "x."]), min_size=1, max_size=12),
    st.floats(0, 0.9),
    st.data(),
)
def test_dropping_words_leaves_at_least_one_in_order(words, share, data):
    text = " ".join(words)
    count = len(split_words(text))
    chance = np.array(data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count)))
    left = split_words(drop_words(text, chance, probability=share))
    assert left
    rest = iter(words)
    assert all(word in rest for word in left)
    if (chance < share).any() and (chance >= share).any():
        assert len(left) == (chance >= share).sum()


def test_a_text_without_words_is_unchanged():
    assert drop_words("  ", np.empty(0), probability=0.5) == "  "
