"""Which captions forbid a flip or a colour change, and what their words are."""

import pytest

from retrieval.train.data.caption_words import forbids_flip, mentions_color, split_words


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
def test_texts_about_sides_or_writing_forbid_a_flip(text):
    assert forbids_flip(text)


@pytest.mark.parametrize("text", ["a bright cat", "a leftover pie", "ein Hund", "一只猫", "un perro", "upright piano"])
def test_other_texts_allow_a_flip(text):
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
def test_texts_that_name_a_colour_are_recognised(text):
    assert mentions_color(text)


@pytest.mark.parametrize(
    "text", ["a tired dog", "this or more", "un chien", "一只狗", "an altered photo", "ein Hund rennt"]
)
def test_other_texts_name_no_colour(text):
    assert not mentions_color(text)


def test_each_chinese_sign_is_a_word():
    assert split_words("红色 the shoe. 好") == ["红", "色", "the", "shoe.", "好"]
