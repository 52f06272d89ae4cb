"""CLIP's tokens without torch: open_clip's SimpleTokenizer is the oracle."""

import gzip
import random
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ftfy
import numpy as np
import open_clip
import pytest

from retrieval.encoder.clip_tokenizer import MERGES_FILE, ClipTokenizer
from retrieval.encoder.text_cleaning import CLEANERS, is_clean

TEXTS = [
    "",
    " ",
    "A photo of 3 red shoes, size 42½ (£9.99)!",
    "don't  STOP\tthe_crème-brûlée &amp; co.",
    "Ein grüner Fußball 红色的鞋子 красные туфли أحذية ٣ Ⅷ 👟👩🏽‍🚀",
    "<start_of_text> a <END_OF_TEXT> b <end_of_text>",
    "I'Ll they'RE 'tis we'd''ve o'clock",
    "&amp;lt;b&gt;bold&amp;lt;/b&gt; &copy 2024 &#x41;&#28; &notanentity;",
    "âœ” mojibake cafÃ© â€œquotesâ€\x9d ﬁ ﬂ Ｗｉｄｅ ﾊﾝｶｸ “curly” ‘quotes’",
    "line\nbreaks\r\nand\rreturns\x0bvertical\x0cfeed\x1b[31mred\x1b[0m\x00nul\x7fdel\x1c\x1f",
    "\ud83d\ude00 \ud800 lone surrogates ſ’s K İstanbul ǅ",
    "hhhhhh aaaaaaa nananana abababab x" * 3,
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 40,
    "x" * 500 + " " + "".join(random.Random(1).choices(string.ascii_lowercase, k=500)),
]
ALPHABETS = [
    string.printable,
    string.ascii_letters + " ' .,-",
    string.printable + "éüß漢字áİıſK’“”…ﬁ½²Ⅷ٣👟\u200b\u200d\ufe0f\u00a0\x85\u2028ÀÃ©â€™",
]


def random_texts(count, *, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(draw.choice(ALPHABETS), k=draw.randrange(24))) for _ in range(count)]


def assert_same_tokens(texts, **options):
    theirs = open_clip.SimpleTokenizer(**options)(texts).numpy()
    ours = ClipTokenizer(**options)(texts)
    assert ours.dtype == np.int64
    assert ours.shape == theirs.shape
    wrong = np.flatnonzero((ours != theirs).any(axis=1))
    assert [texts[number] for number in wrong] == []


def test_tokens_of_many_scripts_escapes_and_broken_encodings_are_open_clips():
    assert_same_tokens(TEXTS)


def test_tokens_of_20_000_random_texts_are_open_clips():
    assert_same_tokens(random_texts(20_000, seed=7))


@pytest.mark.parametrize("clean", CLEANERS)
@pytest.mark.parametrize("context_length", [2, 3, 16, 200])
def test_tokens_are_open_clips_for_each_way_of_cleaning_and_each_length(clean, context_length):
    assert_same_tokens([*TEXTS, *random_texts(200, seed=3)], clean=clean, context_length=context_length)


def test_no_text_gives_no_tokens():
    assert ClipTokenizer(5)([]).shape == (0, 5)


def test_a_text_that_is_called_clean_is_left_alone_by_ftfy():
    clean = "".join(character for character in map(chr, range(0x500)) if is_clean(character))
    assert set(string.printable) - set(clean) == set("&\x0b\x0c")
    assert clean.isascii()
    draw = random.Random(5)
    for _ in range(2000):
        text = "".join(draw.choices(clean, k=30))
        assert ftfy.fix_text(text).split() == text.split()


def test_the_merges_are_those_of_open_clip_that_are_used():
    whole = gzip.decompress(Path(open_clip.tokenizer.default_bpe()).read_bytes()).decode("utf-8").split("\n")
    used = "\n".join(whole[1 : 49_152 - 256 - 2 + 1])
    assert gzip.decompress(MERGES_FILE.read_bytes()).decode("utf-8") == used
    assert MERGES_FILE.read_bytes() == gzip.compress(used.encode("utf-8"), 9, mtime=0)


def test_threads_get_the_tokens_of_their_own_texts():
    tokenizer, texts = ClipTokenizer(), [f"shoe number {number} of {number * 7919}" for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: tokenizer([text])[0], texts))
    assert np.array_equal(rows, open_clip.SimpleTokenizer()(texts).numpy())


def test_a_plain_query_loads_neither_torch_nor_ftfy_nor_regex():
    program = (
        "import sys; from retrieval.encoder.clip_tokenizer import ClipTokenizer; ClipTokenizer()(['Red shoes, 9!']); "
        "print(*{'torch', 'open_clip', 'ftfy', 'regex'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
