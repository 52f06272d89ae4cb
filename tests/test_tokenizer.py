"""Tokenizers of open_clip models without torch: what open_clip builds by transformers is the oracle."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, GemmaTokenizerFast, PreTrainedTokenizerFast

from retrieval.encoder.architectures import build_tokenizer
from retrieval.encoder.tokenizer import find_different_text, load_tokenizer
from retrieval.errors import EncoderError

CORPUS = [
    "A photo of three red shoes, size 42 (9.99)!",
    "don't stop the crème-brûlée & co. until we'll see",
    "Ein grüner Fußball, красные туфли и 红色的鞋子 أحذية",
    "the quick brown fox jumps over the lazy dog; THE DOG SLEEPS",
] * 5
TEXTS = [
    *CORPUS[:4],
    "",
    " two  spaces\tand\na line ",
    "unseen 漢字 👟 &amp; Ω ﬁ &lt;eos&gt; </s> [SEP] <eos> [CLS] <pad>",
    "shoes " * 50,
]


UNKNOWN = {"unk_token": "[UNK]"}
BYTES = {"unk_token": "<unk>"}


def write_siglip(folder):
    """A Unigram model whose end token also pads, as SigLIP's."""
    words = Tokenizer(models.Unigram())
    words.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    special = {"special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>"}
    words.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=200, show_progress=False, **special))
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)


def write_gemma(folder):
    """Byte pairs with an end token and none at the start, as SigLIP2's."""
    words = Tokenizer(models.BPE(byte_fallback=True, **BYTES))
    words.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False))
    model = json.loads(words.to_str())["model"]
    ends = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    merges = [tuple(merge) for merge in model["merges"]]
    GemmaTokenizerFast(vocab=model["vocab"], merges=merges, **ends).save_pretrained(folder)


def write_bert(folder):
    """WordPiece in lower case between [CLS] and [SEP], as CLIPA's; begin and end for the mode "clips"."""
    words = Tokenizer(models.WordPiece(**UNKNOWN))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
    words.train_from_iterator(CORPUS, trainers.WordPieceTrainer(special_tokens=special, show_progress=False))
    ends = {"bos_token": "[unused0]", "eos_token": "[unused1]"}
    BertTokenizerFast(vocab=json.loads(words.to_str())["model"]["vocab"], **ends).save_pretrained(folder)


def write_left(folder):
    """Words that are cut and padded on the left."""
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "shoes": 2, "red": 3, "a": 4}, **UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    sides = {"padding_side": "left", "truncation_side": "left", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **sides).save_pretrained(folder)


WRITERS = {"siglip": write_siglip, "gemma": write_gemma, "bert": write_bert, "left": write_left}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, folder in made.items():
        WRITERS[name](folder)
    return made


def config(length=12, *, mode=None, **options):
    return {"hf_tokenizer_name": "x", "context_length": length, "tokenizer_kwargs": options, "tokenizer_mode": mode}


def random_texts(count):
    draw, letters = random.Random(2), "abcdehorstz ASE  .,'-&;<>[]é‘’漢👟\t\n"
    return ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(count)]


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
@pytest.mark.parametrize("name", WRITERS)
def test_tokens_are_those_that_open_clip_gets_by_transformers(folders, name, clean):
    texts = TEXTS + random_texts(500)
    for length in (4, 16, 64):
        theirs = build_tokenizer(config(length, clean=clean), folder=folders[name])(texts).numpy()
        ours = load_tokenizer(config(length, clean=clean), folders[name])(texts)
        assert ours.dtype == np.int64
        assert ours.shape == theirs.shape
        assert [text for text, one, other in zip(texts, ours, theirs, strict=True) if (one != other).any()] == []


@pytest.mark.parametrize("settings", [config(strip_sep_token=True), config(mode="clips"), config()])
def test_the_separator_is_stripped_and_the_class_is_put_last_as_open_clip_does(folders, settings):
    theirs = build_tokenizer(settings, folder=folders["bert"])(TEXTS).numpy()
    assert np.array_equal(load_tokenizer(settings, folders["bert"])(TEXTS), theirs)


def test_a_tokenizer_equals_itself_and_differs_from_one_that_cleans_otherwise(folders):
    ours = load_tokenizer(config(16), folders["gemma"])
    assert find_different_text(ours, build_tokenizer(config(16), folder=folders["gemma"])) is None
    lower = build_tokenizer(config(16, clean="lower"), folder=folders["gemma"])
    assert find_different_text(ours, lower).startswith("A photo of 3 red shoes")
    assert find_different_text(ours, build_tokenizer(config(17), folder=folders["gemma"])) == ""


def test_clip_tokens_need_no_folder(tmp_path):
    settings = {"context_length": 9, "tokenizer_kwargs": {"clean": "whitespace", "reduction_mask": ""}}
    tokenizer = load_tokenizer(settings, tmp_path)
    assert np.array_equal(tokenizer(TEXTS), build_tokenizer(settings)(TEXTS).numpy())
    assert load_tokenizer({}, tmp_path)(["a"]).shape == (1, 77)


def test_no_text_gives_no_tokens(folders):
    assert load_tokenizer(config(), folders["bert"])([]).shape == (0, 12)


def test_neither_torch_nor_transformers_is_loaded(folders):
    program = (
        "import sys, pathlib; from retrieval.encoder.tokenizer import load_tokenizer\n"
        f"load_tokenizer({config()!r}, pathlib.Path({str(folders['bert'])!r}))(['red shoes'])\n"
        "print(*{'torch', 'open_clip', 'transformers', 'ftfy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (config(language="de"), "The tokenizer's option language is supported by torch only."),
        (config(clean="spotless"), "no way to clean texts called 'spotless'"),
        (config(mode="other"), "tokenizer mode 'other' is supported by torch only"),
        ({"tokenizer_kwargs": {"reduction_mask": "random"}}, "option reduction_mask is supported by torch only"),
        ({"tokenizer_kwargs": {"additional_special_tokens": ["<x>"]}}, "option additional_special_tokens is"),
    ],
)
def test_an_option_that_needs_torch_is_named(folders, settings, reason):
    with pytest.raises(EncoderError, match=reason):
        load_tokenizer(settings, folders["bert"])


def test_missing_and_broken_files_are_named(folders, tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"...")
    with pytest.raises(EncoderError, match=r"holds no tokenizer\.json"):
        load_tokenizer(config(), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(config(), tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folders["bert"] / "tokenizer.json").read_bytes())
    with pytest.raises(EncoderError, match="names no pad_token"):
        load_tokenizer(config(), tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {"content": "[PAD]"}}')
    assert load_tokenizer(config(), tmp_path)(["zzz"])[0, -1] == 0
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(EncoderError, match=r"tokenizer_config\.json cannot be read"):
        load_tokenizer(config(), tmp_path)
