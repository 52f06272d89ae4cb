"""What training changes about pictures and captions: only what leaves the pair true, and by the right amount."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.train.data.caption_words import forbids_flip, mentions_color, split_words
from retrieval.train.data.dataset import PairDataset
from retrieval.train.data.transforms import Augmentation, drop_words, jitter_colors

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
chances = st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4).map(np.array)


@pytest.mark.parametrize(
    "text",
    [
        "A dog looks to the LEFT.",
        "rechts steht ein Baum",
        "un chat à gauche",
        "la mano derecha",
        "кот слева",
        "左边有一只猫",
        "右手",
        "고양이가 왼쪽에 있다",
        "the letter A",
        "a stop sign",
        "数字 7",
    ],
)
def test_a_text_that_says_left_or_right_or_speaks_of_writing_bars_mirroring(text):
    assert forbids_flip(text)


@pytest.mark.parametrize("text", ["a bright cat", "a leftover pie", "ein Hund", "一只猫", "un perro", "upright piano"])
def test_other_texts_do_not_bar_mirroring(text):
    assert not forbids_flip(text)


@pytest.mark.parametrize(
    "text",
    [
        "Red shoes",
        "a navy-blue coat",
        "ein grünes Auto",
        "une robe rouge",
        "zapatos rojos NEGRO",
        "红色的鞋",
        "黒い猫",
        "blå/blue",
        "красный шар",
        "빨간 사과",
        "light_gray hoodie",
        "blaue Hosen",
    ],
)
def test_a_text_that_names_a_colour_is_known(text):
    assert mentions_color(text)


@pytest.mark.parametrize(
    "text", ["a tired dog", "this or more", "un chien", "一只狗", "an altered photo", "ein Hund rennt"]
)
def test_other_texts_name_no_colour(text):
    assert not mentions_color(text)


def dataset_of(*right):
    """Pictures with these right texts, each its own."""
    texts = tuple(dict.fromkeys(text for texts in right for text in texts))
    numbers = tuple(tuple(texts.index(text) for text in own) for own in right)
    return PairDataset(tuple(range(len(right))), texts, numbers, numbers)


def test_one_right_text_is_enough_to_leave_a_picture_alone():
    dataset = dataset_of(["a dog"], ["a dog", "a dog on the left"], ["a red dog"], ["left red"])
    looks = Augmentation.from_captions(dataset.texts, dataset.positives, flip=1.0, color_jitter=0.2)
    assert looks.may_flip.tolist() == [True, False, True, False]
    assert looks.may_jitter.tolist() == [True, True, False, False]


def test_pictures_are_mirrored_as_often_as_asked_and_only_where_allowed():
    looks = Augmentation(0.25, 0.0, np.array([True, False]), np.array([False, False]))
    chance = np.array([0.2, 0.5, 0.5, 0.5, 0.5])
    assert np.array_equal(looks.apply(0, PIXELS, chance), PIXELS[:, ::-1])
    assert np.array_equal(looks.apply(0, PIXELS, np.full(5, 0.25)), PIXELS)
    assert np.array_equal(looks.apply(1, PIXELS, chance), PIXELS)


def test_colours_change_only_where_allowed():
    looks = Augmentation(0.0, 0.2, np.array([True, True]), np.array([True, False]))
    chance = np.full(5, 0.9)
    assert not np.array_equal(looks.apply(0, PIXELS, chance), PIXELS)
    assert np.array_equal(looks.apply(1, PIXELS, chance), PIXELS)


@given(st.floats(0, 0.5))
def test_middle_chance_changes_nothing(strength):
    assert np.array_equal(jitter_colors(PIXELS, np.full(4, 0.5), strength=strength), PIXELS)


@given(chances)
def test_greys_stay_grey(chance):
    gray = np.repeat(PIXELS[..., :1], 3, axis=2)
    changed = jitter_colors(gray, chance, strength=0.3).astype(int)
    assert np.ptp(changed, axis=2).max() <= 1  # of 255: rounding


def test_each_number_changes_its_own_property_by_the_stated_share():
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


def test_a_turned_hue_keeps_luminance_and_half_a_turn_back_undoes_it():
    pixels = (PIXELS // 4 + 90).astype(np.uint8)
    turned = jitter_colors(pixels, np.array([0.5, 0.5, 0.5, 1.0]), strength=0.5)
    back = jitter_colors(turned, np.array([0.5, 0.5, 0.5, 0.0]), strength=0.5)
    assert not np.array_equal(turned, pixels)
    assert turned @ [0.299, 0.587, 0.114] == pytest.approx(pixels @ [0.299, 0.587, 0.114], abs=1)
    assert back.astype(int) == pytest.approx(pixels.astype(int), abs=2)


def test_chinese_signs_are_words_of_their_own():
    assert split_words("红色 the shoe. 好") == ["红", "色", "the", "shoe.", "好"]


@given(
    st.lists(st.sampled_from(["a", "red", "shoe", "好", "for", "x."]), min_size=1, max_size=12),
    st.floats(0, 0.9),
    st.data(),
)
def test_one_word_stays_at_least_and_the_order_is_kept(words, share, data):
    text = " ".join(words)
    count = len(split_words(text))
    chance = np.array(data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count)))
    left = split_words(drop_words(text, chance, probability=share))
    assert left
    rest = iter(words)
    assert all(word in rest for word in left)
    if (chance < share).any() and (chance >= share).any():
        assert len(left) == (chance >= share).sum()


def test_a_text_without_words_stays():
    assert drop_words("  ", np.empty(0), probability=0.5) == "  "
