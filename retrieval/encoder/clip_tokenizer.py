"""CLIP's byte-pair encoding by numpy: what open_clip's `SimpleTokenizer` returns, without torch.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", arXiv 1508.07909, on bytes: a word
starts as its bytes, the last of them marked as the end of the word, and the adjacent pair that was learned first is
merged until none is left. A part's id is the rank of the merge that made it, after the 512 bytes with and without mark.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder.text_cleaning import CLEANERS

CONTEXT_LENGTH: Final = 77
MERGES_FILE: Final = Path(__file__).with_name("clip_merges.txt.gz")
_CACHED_WORDS = 65_536
_CACHED_CHARACTERS = 64  # a longer word is hardly met again
_SPECIAL = {"<start_of_text>": 49_406, "<end_of_text>": 49_407}
_START, _END = _SPECIAL.values()
# The longest alternative does not win, but the first: open_clip's own order.
_WORD = "|".join([*_SPECIAL, "'s|'t|'re|'ve|'m|'ll|'d|[LETTER]+|[DIGIT]|[^\\sLETTERDIGIT]+"])
_ASCII_WORD = re.compile(_WORD.replace("LETTER", "a-z").replace("DIGIT", "0-9"), re.IGNORECASE)


class ClipTokenizer:
    """Texts to tokens, int64 `(n, context length)`: start, the text's tokens, end, zeros; a long text is cut.

    A text of plain ASCII loads neither ftfy nor regex. May be called from several threads at once.

    Args:
        context_length: Tokens of a row, start and end among them; at least 2.
        clean: How texts are cleaned first: "lower", "whitespace" or "canonicalize".
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH, *, clean: str = "lower") -> None:
        self.context_length = context_length
        self._clean = CLEANERS[clean]
        self._encode_cached = lru_cache(maxsize=_CACHED_WORDS)(_encode_word)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the tokens of each text."""
        tokens = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [_START, *islice(self._encode(text), self.context_length - 2), _END]
            row[: len(ids)] = ids
        return tokens

    def _encode(self, text: str) -> Iterator[int]:
        """Yield the text's tokens; a word is encoded when its first token is asked for."""
        return chain.from_iterable(map(self._encode_known, _split_words(self._clean(text))))

    def _encode_known(self, word: str) -> tuple[int, ...]:
        return self._encode_cached(word) if len(word) <= _CACHED_CHARACTERS else _encode_word(word)


def _split_words(text: str) -> Iterator[str]:
    pattern: Any = _ASCII_WORD if text.isascii() else _unicode_word()
    return (match.group() for match in pattern.finditer(text))


@cache
def _unicode_word() -> Any:
    import regex  # knows the classes of characters, and is imported only for texts that need it

    return regex.compile(_WORD.replace("LETTER", r"\p{L}").replace("DIGIT", r"\p{N}"), regex.IGNORECASE)


@cache
def _load_ranks() -> dict[str, int]:
    """Return the rank of each merge, "left right"; one dictionary of strings takes half the time of one of pairs."""
    # 31 bits is zlib's word for a gzip file.
    merges = zlib.decompress(MERGES_FILE.read_bytes(), wbits=31).decode("utf-8").split("\n")
    return dict(zip(merges, range(len(merges)), strict=True))


@cache
def _byte_parts() -> tuple[dict[int, str], dict[str, int]]:
    """Return the printable character that stands for each byte, and the id of each such part with and without mark."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    parts = [*characters.values(), *(f"{character}</w>" for character in characters.values())]
    return characters, {part: number for number, part in enumerate(parts)}


def _encode_word(word: str) -> tuple[int, ...]:
    """Merge the word's bytes, the pair of the least rank first and wherever it occurs, and return the parts' ids."""
    if word in _SPECIAL:
        return (_SPECIAL[word],)
    ranks, (characters, ids) = _load_ranks(), _byte_parts()
    parts = [characters[byte] for byte in word.encode("utf-8")]
    parts[-1] += "</w>"
    merged: dict[str, int] = {}
    while len(parts) > 1:
        left, right = min(pairwise(parts), key=lambda pair: ranks.get(" ".join(pair), len(ranks)))
        rank = ranks.get(f"{left} {right}")
        if rank is None:
            break
        merged[left + right] = 512 + rank
        # Each part stands between spaces of its own, so that neighbouring pairs do not share one.
        parts = f" {'  '.join(parts)} ".replace(f" {left}  {right} ", f" {left}{right} ").split()
    return tuple(merged[part] if part in merged else ids[part] for part in parts)
