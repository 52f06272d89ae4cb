"""The words of a caption that decide whether its image may be flipped and whether its colours may change.

The lists cover English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian, Turkish, Chinese,
Japanese and Korean. A word too many costs a little variety, a word too few teaches something wrong, so the lists err
on the side of too many: "light" and "orange" count as colours in any meaning. Words of writing, numbers and clocks
forbid a flip since those look wrong in a mirror.
"""

import json
import re
from importlib.resources import files
from typing import Final

# Scripts without spaces between words: the sign counts anywhere. 黑 is 黒 in Japanese.
_ORIENTATION_SIGNS: Final = re.compile(
    "[左右字文]|왼쪽|오른쪽|좌측|우측|数字|號碼|号码|地图|地圖|標誌|标志|時計|钟|鐘|글자|글씨|숫자|문자|간판|지도"
)
_COLOR_SIGNS: Final = re.compile(
    "[色黑黒白灰银銀金红紅赤粉橙黄黃棕褐绿綠緑青蓝藍紫]|검은|검정|하얀|흰|회색|빨간|빨강|분홍|주황|노란|노랑|갈색|초록|녹색|파란|파랑|보라"
)
_WORD: Final = re.compile(r"[^\W\d_]+")
_ENDINGS: Final = ("", "s", "e", "n", "es", "er", "en", "em")
# What stands between spaces or, in scripts without spaces, a single sign.
_PIECE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

_LISTS: Final = json.loads((files(__package__) / "caption_words.json").read_text(encoding="utf-8"))
_ORIENTATION, _COLORS = (frozenset(" ".join(_LISTS[name]).split()) for name in ("orientation", "colors"))


def forbids_flip(text: str) -> bool:
    """Return whether a text says left or right, or speaks of letters, numbers and the like."""
    return bool(_ORIENTATION_SIGNS.search(text)) or _contains_word(text, _ORIENTATION)


def mentions_color(text: str) -> bool:
    """Return whether a text names a colour, or speaks of colours or brightness."""
    return bool(_COLOR_SIGNS.search(text)) or _contains_word(text, _COLORS)


def split_words(text: str) -> list[str]:
    """Return the words of a text, in order, with their punctuation; each Chinese or Japanese sign is a word."""
    return _PIECE.findall(text)


def _contains_word(text: str, words: frozenset[str]) -> bool:
    """Return whether one of the words is in a text, also inflected as in "grünes" and "rojos"."""
    found = _WORD.findall(text.casefold())
    return any(word.removesuffix(ending) in words for word in found for ending in _ENDINGS)
