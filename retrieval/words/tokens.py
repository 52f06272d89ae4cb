"""The tokenizer of stored texts and of queries: normalized words without plurals; bigrams in scripts without spaces.

FTS5's own tokenizers know no Chinese, and cut Thai and Hindi at their vowel signs. So texts are split here and stored
with spaces between the tokens; FTS5's `ascii` tokenizer, to which everything beyond ASCII is a letter, splits there.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_TOKEN_LENGTH = 64
"""Characters kept of a token; anything longer is a code, and its beginning tells it apart."""

# Scripts without spaces between words, and Hangul, whose particles are attached to the nouns. A run of these characters
# is stored as its bigrams and its last character, so every part of it is a phrase of bigrams, every character a prefix.
_RUN = re.compile(
    "(["
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u1100-\u11ff\uac00-\ud7af"  # Hangul
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
    "]+)"
)
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
_SIGNS = re.compile("[™℠]")  # NFKC makes letters of them

_IGNORED = re.compile(  # accents, the points of Hebrew and Arabic, and what joins or softly parts letters
    "[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u00ad\u200c\u200d\u2060\ufeff]"
)


class QueryTerm(NamedTuple):
    """One word of a query, or one run of a script without spaces."""

    tokens: tuple[str, ...]  # the tokens to find one after another: a single one, or the bigrams of a run
    surface: str  # the word before its plural ending was removed, or the run
    is_prefix: bool = False  # whether the single token is a character that bigrams begin with


def tokenize(text: str) -> list[str]:
    """Return the tokens of a text in order, as they are stored."""
    tokens: list[str] = []
    for piece, is_run in _split(text):
        tokens += [piece[start : start + 2] for start in range(len(piece))] if is_run else [stem_plural(piece)]
    return tokens


def tokenize_query(text: str) -> list[QueryTerm]:
    """Return the distinct terms of a query in order, each in the tokens that `tokenize` stores."""
    return list(dict.fromkeys(_term(*piece) for piece in _split(text)))


def normalize_text(text: str) -> str:
    """Return the text in lower case and without widths, accents and signs: letters, digits, hyphens and spaces."""
    text = _SIGNS.sub(" ", _POSSESSIVE.sub("", text))
    if not text.isascii():
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
        text = unicodedata.normalize("NFC", _IGNORED.sub("", text))
    return text.translate(_CHARACTERS)


def normalize_identifier(text: str) -> str:
    """Return the normalized letters and digits of an identifier, by which it is compared; empty where it has none."""
    return normalize_text(text).replace("-", "").replace(" ", "")


_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "knives": "knife", "scarves": "scarf", "shelves": "shelf", "leaves": "leaf", "wolves": "wolf", "loaves": "loaf",
    "buses": "bus", "lens": "lens", "lenses": "lens", "mice": "mouse", "skies": "sky",
}  # fmt: skip

_PLURAL = re.compile("^(..+[^siu])s$")  # not "dress", "tennis", "bus", "gas"
_MUTE = re.compile("^(..+(?:ss|x|ch|sh|zz|i)|...+o)e$")  # "dresse" of "dresses"; not "shoe"
_Y = re.compile("^(..+[^aeiou])y$")


@lru_cache(1 << 16)  # most text consists of few distinct words
def stem_plural(word: str) -> str:
    """Return the stem that an English word shares with its plural.

    Only plurals are stemmed: Porter's stemmer would also turn "organization" into "organ", and shorten names and words
    of other languages. Vectors account for the meaning.
    """
    if not (word.isascii() and word.isalpha()):
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return _Y.sub(r"\1i", _MUTE.sub(r"\1", _PLURAL.sub(r"\1", word)))


def _term(piece: str, is_run: bool) -> QueryTerm:  # noqa: FBT001 - as `_split` yields them
    if not is_run:
        return QueryTerm((stem_plural(piece),), piece)
    run = piece[:MAX_TOKEN_LENGTH]
    if len(run) == 1:
        return QueryTerm((run,), run, is_prefix=True)
    return QueryTerm(tuple(run[start : start + 2] for start in range(len(run) - 1)), run)


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """Yield words and runs of scripts without spaces, and whether each is a run; "t-shirt" is t, shirt and tshirt."""
    for word in normalize_text(text).split():
        parts = [part for part in word.split("-") if part]
        runs = False
        for part in parts:
            for place, piece in enumerate(_RUN.split(part)):
                runs |= place % 2 == 1
                if piece:
                    yield (piece, True) if place % 2 else (piece[:MAX_TOKEN_LENGTH], False)
        if len(parts) > 1 and not runs:
            yield "".join(parts)[:MAX_TOKEN_LENGTH], False


class _CharacterMap(dict[int, str]):
    """A table for str.translate: each character to itself, a digit, a hyphen or a space; filled on demand."""

    def __missing__(self, code: int) -> str:
        self[code] = mapped = _map_character(chr(code))
        return mapped


def _map_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category in ("Pd", "Pc"):
        return "-"
    return character.lower() if category[0] in "LNM" else " "


_CHARACTERS = _CharacterMap()
