"""What a word is, in stored texts and in queries alike: folded, cut, singular; bigrams where no spaces are written.

The tokenizers of FTS5 know no Chinese, and cut Thai and Hindi at their vowel signs. So texts are cut here and stored
with a space between words; FTS5's `ascii` tokenizer, to which everything beyond ASCII is a letter, finds the spaces.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MAX_WORD = 64
"""Characters of a word that are kept; what is longer is no word but a code, and told apart by its beginning."""

# Scripts without spaces between words; and Hangul, whose particles cling to the nouns. A run of them is stored as its
# pairs of neighbours and its last character alone, so any part of it is a phrase of pairs, any character a prefix.
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

_UNWRITTEN = re.compile(  # accents, the points of Hebrew and Arabic, and what joins or softly parts letters
    "[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u00ad\u200c\u200d\u2060\ufeff]"
)


class Term(NamedTuple):
    """One word of a query.

    Attributes:
        grams: Stored words that stand one after another: one, or the pairs of a run.
        typed: The word before its plural was folded, or the run.
        begins: Whether the one gram is a character that pairs begin with.
    """

    grams: tuple[str, ...]
    typed: str
    begins: bool = False


def stored_words(text: str) -> list[str]:
    """Return the words of a text as they are stored, in order."""
    words: list[str] = []
    for piece, is_run in _pieces(text):
        words += [piece[start : start + 2] for start in range(len(piece))] if is_run else [singular(piece)]
    return words


def query_terms(text: str) -> list[Term]:
    """Return the different words of a query in order, as they may be looked for in what `stored_words` made."""
    return list(dict.fromkeys(_run_term(piece) if is_run else _word_term(piece) for piece, is_run in _pieces(text)))


def fold(text: str) -> str:
    """Return the text without case, widths, accents and signs: letters, digits, hyphens between them, single spaces."""
    text = _SIGNS.sub(" ", _POSSESSIVE.sub("", text))
    if not text.isascii():
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
        text = unicodedata.normalize("NFC", _UNWRITTEN.sub("", text))
    return text.translate(_LETTERS)


def identifier_key(text: str) -> str:
    """Return what an identifier is compared by: its letters and digits, folded; empty where it has none."""
    return fold(text).replace("-", "").replace(" ", "")


_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "knives": "knife", "scarves": "scarf", "shelves": "shelf", "leaves": "leaf", "wolves": "wolf", "loaves": "loaf",
    "buses": "bus", "lens": "lens", "lenses": "lens", "mice": "mouse", "skies": "sky",
}  # fmt: skip

_PLURAL = re.compile("^(..+[^siu])s$")  # not "dress", "tennis", "bus", "gas"
_MUTE = re.compile("^(..+(?:ss|x|ch|sh|zz|i)|...+o)e$")  # "dresse" of "dresses"; not "shoe"
_Y = re.compile("^(..+[^aeiou])y$")


@lru_cache(1 << 16)  # few words are most of all texts
def singular(word: str) -> str:
    """Return the word, an English plural as its singular: both as a stem that only they share.

    Plurals alone, where Porter's stemmer would also make "organ" of "organization", and cut names and words of other
    languages short. Meaning beyond the number is the vectors' part.
    """
    if not (word.isascii() and word.isalpha()):
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return _Y.sub(r"\1i", _MUTE.sub(r"\1", _PLURAL.sub(r"\1", word)))


def _run_term(run: str) -> Term:
    run = run[:MAX_WORD]
    if len(run) == 1:
        return Term((run,), run, begins=True)
    return Term(tuple(run[start : start + 2] for start in range(len(run) - 1)), run)


def _word_term(word: str) -> Term:
    return Term((singular(word),), word)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Words, and runs of scripts without spaces, which are marked; "t-shirt" is t, shirt and tshirt."""
    for word in fold(text).split():
        parts = [part for part in word.split("-") if part]
        runs = False
        for part in parts:
            for place, piece in enumerate(_RUN.split(part)):
                runs |= place % 2 == 1
                if piece:
                    yield (piece, True) if place % 2 else (piece[:MAX_WORD], False)
        if len(parts) > 1 and not runs:
            yield "".join(parts)[:MAX_WORD], False


class _Letters(dict[int, str]):
    """For str.translate: each character as itself, a digit, a hyphen or a space; filled as characters come."""

    def __missing__(self, code: int) -> str:
        self[code] = kept = _kept(chr(code))
        return kept


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category in ("Pd", "Pc"):
        return "-"
    return character.lower() if category[0] in "LNM" else " "


_LETTERS = _Letters()
