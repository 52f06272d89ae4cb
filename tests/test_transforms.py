"""Training transform: whole ones against open_clip's own preprocessing, random ones by their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.train.data.transforms import TrainTransform

MIDDLE = (0.5, 0.5, 0.5, 0.5)
MODES = ["shortest", "squash", "longest"]


def transform(*, size=(32, 32), mode="shortest", min_scale=0.7) -> TrainTransform:
    return TrainTransform(height=size[0], width=size[1], resize_mode=mode, bicubic=True, fill=0, min_scale=min_scale)


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours that differ everywhere, so that a shift or a stretch shows."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([across, down, 0.5 + 0.5 * np.sin(9 * across + 5 * down)], axis=-1)
    return Image.fromarray((255 * waves).astype(np.uint8))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(64, 64), (90, 60), (60, 90), (20, 16), (500, 70), (33, 32)])
def test_a_whole_crop_is_what_open_clip_s_preprocessing_shows(mode, shape):
    """Up to half a pixel, since open_clip rounds where it cuts or pads; here a pixel is 8 to 18 grey levels."""
    picture, whole = photo(*shape), transform(mode=mode, min_scale=1.0)
    steps = image_transform_v2(PreprocessCfg(size=32, resize_mode=mode), is_train=False).transforms[:-2]
    expected = picture
    for step in steps:
        expected = step(expected)
    ours = whole.random_resized_crop(whole.resize(picture), (0.9, 0.1, 0.2, 0.3))
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
def test_a_crop_lies_inside_the_picture_and_shows_enough_of_it(plan, size, chance):
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
def test_left_stays_left_and_up_stays_up(mode):
    picture = Image.new("RGB", (80, 80), "red")
    picture.paste("blue", (40, 0, 80, 40))
    plan = transform(mode=mode, min_scale=0.5)
    for chance in np.random.default_rng(0).random((50, 4)):
        corner = plan.random_resized_crop(plan.resize(picture), chance)
        assert corner[2, -3, 2] > 200  # blue above on the right
        assert corner[-3, 2, 0] > 200  # red below on the left


@given(st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4))
def test_colours_are_never_changed(color, chance):
    plan = transform()
    crop = plan.random_resized_crop(plan.resize(Image.new("RGB", (50, 70), color)), chance)
    assert (crop == np.array(color, np.uint8)).all()


def test_crops_differ_by_place_and_by_size():
    plan = transform()
    framed = plan.resize(photo(90, 90))
    shown = {plan.random_resized_crop(framed, chance).tobytes() for chance in np.random.default_rng(0).random((20, 4))}
    assert len(shown) == 20


def test_a_framed_picture_keeps_only_the_pixels_that_crops_need():
    assert transform(min_scale=0.64).resize(Image.new("RGB", (4000, 4000))).size == (40, 40)  # 32 / sqrt(.64)
    assert transform(min_scale=0.64).resize(Image.new("RGB", (400, 4000))).size == (
        40,
        80,
    )  # twice as long as wide at most
    assert transform(min_scale=0.64).resize(photo(20, 20)).size == (20, 20)  # never enlarged


def test_settings_come_from_the_model_s_preprocessing():
    config = {"size": [24, 32], "resize_mode": "squash", "interpolation": "bilinear", "fill_color": 7}
    assert TrainTransform.from_preprocess(config, min_scale=0.9) == TrainTransform(
        24, 32, "squash", bicubic=False, fill=7, min_scale=0.9
    )


def test_padding_has_the_model_s_grey():
    plan = TrainTransform(32, 32, "longest", bicubic=True, fill=99, min_scale=1.0)
    crop = plan.random_resized_crop(plan.resize(Image.new("RGB", (64, 16), "red")), MIDDLE)
    assert crop[0, 0].tolist() == [99, 99, 99]
    assert crop[16, 16].tolist() == [255, 0, 0]
