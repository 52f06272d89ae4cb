"""What a word is: the same in stored texts and in queries, in every script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.words.tokens import fold, identifier_key, query_terms, singular, stored_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red BAGS", ["red", "bag"]),
        ("Ｒｅｄ ｂａｇ", ["red", "bag"]),
        ("Café Ñandú groß", ["cafe", "nandu", "gross"]),
        ("T-shirt", ["t", "shirt", "tshirt"]),
        ("men's Luma™ band", ["man", "luma", "band"]),
        ("MH01-XS_Black", ["mh01", "xs", "black", "mh01xsblack"]),
        ("3.5 l, 50%", ["3", "5", "l", "50"]),
        ("宫保鸡丁", ["宫保", "保鸡", "鸡丁", "丁"]),
        ("鸡", ["鸡"]),
        ("iPhone手机壳15", ["iphone", "手机", "机壳", "壳", "15"]),
        ("ワンピース・赤", ["ワン", "ンピ", "ピー", "ース", "ス", "赤"]),
        ("ﾜﾝﾋﾟｰｽ", ["ワン", "ンピ", "ピー", "ース", "ス"]),
        ("ガ", ["ガ"]),
        ("แมว", ["แม", "มว", "ว"]),
        ("신발을", ["신발", "발을", "을"]),
        ("किताब", ["किताब"]),
        ("كِتَاب", ["كتاب"]),
        ("٣٤", ["34"]),
        ("Чёрный", ["черныи"]),
        ("🐱 !? \x00", []),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zero", "width"]),
    ],
)
def test_words(text, words):
    assert stored_words(text) == words


@pytest.mark.parametrize(
    "forms",
    [
        "bag bags", "hoodie hoodies hoody", "dress dresses", "box boxes", "watch watches", "brush brushes",
        "berry berries", "shoe shoes", "potato potatoes", "canoe canoes", "blouse blouses", "bus buses", "lens lenses",
        "toy toys", "woman women", "knife knives", "glass glasses", "house houses", "axe axes", "cookie cookies",
    ],
)  # fmt: skip
def test_a_plural_is_its_singular(forms):
    assert len({singular(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    "words",
    [
        "cap cape",
        "plan plane",
        "organ organization",
        "bus bu",
        "dress dre",
        "xs x",
        "gas ga",
        "new news1",
        "tennis tenni",
    ],
)
def test_different_words_stay_different(words):
    assert len({singular(word) for word in words.split()}) == 2


def grams(query):
    return [(term.grams, term.begins) for term in query_terms(query)]


def test_a_run_of_a_query_is_a_phrase_of_pairs_and_one_character_is_what_pairs_begin_with():
    assert grams("鸡丁") == [(("鸡丁",), False)]
    assert grams("宫保鸡丁 spicy") == [(("宫保", "保鸡", "鸡丁"), False), (("spici",), False)]
    assert grams("鸡") == [(("鸡",), True)]
    assert grams("bag Bags BAG") == [(("bag",), False), (("bag",), False)], "as they were typed: bag, bags"


SCRIPTS = st.text(st.sampled_from("宫保鸡丁ガｶﾞแมว신 -aéＢ's0"), max_size=12)


@given(text=SCRIPTS, start=st.integers(0, 12), length=st.integers(1, 6))
def test_every_part_of_a_run_is_a_phrase_in_what_is_stored(text, start, length):
    run = "".join(character for character in fold(text) if character in "宫保鸡丁ガแมว신")
    part, stored = run[start : start + length], stored_words(run)
    for term in query_terms(part):
        places = range(len(stored) - len(term.grams) + 1)
        if term.begins:
            assert any(word.startswith(term.grams) for word in stored)
        else:
            assert any(tuple(stored[place : place + len(term.grams)]) == term.grams for place in places)


@given(st.text())
def test_a_word_is_letters_digits_and_their_marks_alone(text):
    for word in stored_words(text):
        assert {unicodedata.category(character)[0] for character in word} <= {"L", "N", "M"}


@given(st.text())
def test_a_text_is_found_by_itself(text):
    stored = stored_words(text)
    for term in query_terms(text):
        assert any(word.startswith(term.grams[0]) for word in stored)


@given(st.text())
def test_case_and_width_do_not_count(text):
    assert stored_words(unicodedata.normalize("NFC", text)) == stored_words(unicodedata.normalize("NFD", text))


def test_an_identifier_is_its_letters_and_digits():
    assert identifier_key(" MH01-XS.Black ") == identifier_key("mh01 xs/black") == "mh01xsblack"
    assert identifier_key("-/-") == ""
