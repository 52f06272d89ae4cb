"""What a word is: the same in stored texts and in queries, in every script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.words.tokens import normalize_identifier, normalize_text, stem_plural, tokenize, tokenize_query


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
def test_text_is_split_into_tokens(text, words):
    assert tokenize(text) == words


@pytest.mark.parametrize(
    "forms",
    [
        "bag bags", "hoodie hoodies hoody", "dress dresses", "box boxes", "watch watches", "brush brushes",
        "berry berries", "shoe shoes", "potato potatoes", "canoe canoes", "blouse blouses", "bus buses", "lens lenses",
        "toy toys", "woman women", "knife knives", "glass glasses", "house houses", "axe axes", "cookie cookies",
    ],
)  # fmt: skip
def test_a_plural_and_its_singular_share_a_stem(forms):
    assert len({stem_plural(form) for form in forms.split()}) == 1


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
def test_different_words_have_different_stems(words):
    assert len({stem_plural(word) for word in words.split()}) == 2


def tokens(query):
    return [(term.tokens, term.is_prefix) for term in tokenize_query(query)]


def test_a_run_in_a_query_is_a_phrase_of_bigrams_and_a_single_character_a_prefix():
    assert tokens("鸡丁") == [(("鸡丁",), False)]
    assert tokens("宫保鸡丁 spicy") == [(("宫保", "保鸡", "鸡丁"), False), (("spici",), False)]
    assert tokens("鸡") == [(("鸡",), True)]
    assert tokens("bag Bags BAG") == [(("bag",), False), (("bag",), False)], "as they were typed: bag, bags"


SCRIPTS = st.text(st.sampled_from("宫保鸡丁ガｶﾞแมว신 -aéＢ's0"), max_size=12)


@given(text=SCRIPTS, start=st.integers(0, 12), length=st.integers(1, 6))
def test_every_part_of_a_run_is_a_phrase_of_the_stored_tokens(text, start, length):
    run = "".join(character for character in normalize_text(text) if character in "宫保鸡丁ガแมว신")
    part, stored = run[start : start + length], tokenize(run)
    for term in tokenize_query(part):
        places = range(len(stored) - len(term.tokens) + 1)
        if term.is_prefix:
            assert any(word.startswith(term.tokens) for word in stored)
        else:
            assert any(tuple(stored[place : place + len(term.tokens)]) == term.tokens for place in places)


@given(st.text())
def test_a_token_contains_only_letters_digits_and_their_marks(text):
    for word in tokenize(text):
        assert {unicodedata.category(character)[0] for character in word} <= {"L", "N", "M"}


@given(st.text())
def test_every_text_matches_itself(text):
    stored = tokenize(text)
    for term in tokenize_query(text):
        assert any(word.startswith(term.tokens[0]) for word in stored)


@given(st.text())
def test_case_and_width_are_ignored(text):
    assert tokenize(unicodedata.normalize("NFC", text)) == tokenize(unicodedata.normalize("NFD", text))


def test_an_identifier_is_compared_by_its_letters_and_digits():
    assert normalize_identifier(" MH01-XS.Black ") == normalize_identifier("mh01 xs/black") == "mh01xsblack"
    assert normalize_identifier("-/-") == ""
