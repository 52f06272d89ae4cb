"""The words of a caption that decide whether its image may be flipped and whether its colours may change.

The lists cover English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian, Turkish, Chinese,
Japanese and Korean. A word too many costs a little variety, a word too few teaches something wrong, so the lists err
on the side of too many: "light" and "orange" count as colours in any meaning.
"""

import re
from typing import Final

_SIDES: Final = """
left leftmost leftward leftwards lefthand right rightmost rightward rightwards righthand clockwise counterclockwise
anticlockwise links linke linker linkes linken rechts rechte rechter rechtes rechten gauche droite izquierda izquierdo
derecha derecho sinistra sinistro destra destro esquerda esquerdo direita direito linkerkant rechterkant lewo lewy
lewa lewej prawo prawy prawa prawej слева налево левый левая левое левой справа направо правый правая правое правой
solda sağ sağda sağa
"""
# Writing, numbers and clocks look wrong in a mirror.
_WRITING: Final = """
text texts letter letters lettering word words writing written reads reading says saying digit digits number numbers
numeral alphabet initial initials monogram font calligraphy sign signs signpost logo logos label labels slogan caption
title poster banner map maps clock flag schrift buchstabe buchstaben zahl ziffer wort wörter schild landkarte uhr
lettre lettres mot mots chiffre chiffres panneau carte horloge letra letras palabra palabras número números dígito
cartel mapa reloj lettera lettere parola parole cifra numero numeri cartello palavra palavras placa буква буквы слово
слова цифра число надпись знак карта часы litera litery słowo cyfra harf harfi sayı yazı
"""
_COLORS: Final = """
black white gray grey silver gold golden red reddish crimson scarlet maroon burgundy ruby coral salmon rust pink
magenta fuchsia rose orange peach apricot amber copper bronze yellow mustard lemon cream ivory beige tan khaki brown
chocolate chestnut camel caramel coffee green lime olive emerald mint teal turquoise cyan aqua blue bluish navy azure
indigo cobalt denim purple violet lilac lavender mauve plum colored coloured colorful colourful multicolor
multicolored multicoloured rainbow monochrome sepia dark light bright pale pastel neon blonde blond brunette tinted
charcoal taupe nude lightblue darkblue schwarz weiß weiss grau silber rot rosa gelb braun grün blau lila violett
türkis bunt dunkel hell creme noir noire blanc blanche gris grise argent doré rouge orangé jaune marron brun brune
vert verte bleu bleue violette coloré foncé clair negro negra blanco blanca plata plateado oro dorado rojo roja
naranja amarillo amarilla marrón verde azul morado morada violeta oscuro claro nero nera bianco bianca grigio grigia
argento dorato rosso rossa arancione giallo gialla marrone azzurro azzurra blu viola scuro chiaro preto preta branco
branca cinza prata dourado vermelho vermelha laranja amarelo amarela castanho roxo roxa escuro zwart zwarte wit witte
grijs grijze zilver goud rood rode roze oranje geel gele bruin bruine groen groene blauw blauwe paars donker licht
czarny czarna biały biała szary srebrny złoty czerwony czerwona różowy pomarańczowy żółty żółta brązowy zielony
zielona niebieski niebieska fioletowy чёрный черный чёрная черная белый белая серый серая серебряный золотой красный
красная розовый оранжевый жёлтый желтый жёлтая желтая коричневый зелёный зеленый зелёная зеленая синий синяя голубой
голубая фиолетовый цветной тёмный светлый siyah beyaz gri gümüş altın kırmızı pembe turuncu sarı kahverengi yeşil mavi
lacivert renkli koyu açık
"""
# Scripts without spaces between words: the sign counts anywhere. 黑 is 黒 in Japanese.
_SIDE_SIGNS: Final = re.compile("[左右]|왼쪽|오른쪽|좌측|우측")
_WRITING_SIGNS: Final = re.compile("[字文]|数字|號碼|号码|地图|地圖|標誌|标志|時計|钟|鐘|글자|글씨|숫자|문자|간판|지도")
_COLOR_SIGNS: Final = re.compile(
    "[色黑黒白灰银銀金红紅赤粉橙黄黃棕褐绿綠緑青蓝藍紫]|검은|검정|하얀|흰|회색|빨간|빨강|분홍|주황|노란|노랑|갈색|초록|녹색|파란|파랑|보라"
)
_WORD: Final = re.compile(r"[^\W\d_]+")
# What stands between spaces or, in scripts without spaces, a single sign.
_PIECE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

_MIRROR_WORDS: Final = frozenset(f"{_SIDES} {_WRITING}".split())
_COLOR_WORDS: Final = frozenset(_COLORS.split())


def forbids_flip(text: str) -> bool:
    """Return whether a text says left or right, or speaks of letters, numbers and the like."""
    return bool(_SIDE_SIGNS.search(text) or _WRITING_SIGNS.search(text)) or _contains_word(text, _MIRROR_WORDS)


def mentions_color(text: str) -> bool:
    """Return whether a text names a colour, or speaks of colours or brightness."""
    return bool(_COLOR_SIGNS.search(text)) or _contains_word(text, _COLOR_WORDS)


def split_words(text: str) -> list[str]:
    """Return the words of a text, in order, with their punctuation; each Chinese or Japanese sign is a word."""
    return _PIECE.findall(text)


def _contains_word(text: str, words: frozenset[str]) -> bool:
    """Return whether one of the words is in a text, also inflected as in "grünes" and "rojos"."""
    return any(stem in words for word in _WORD.findall(text.casefold()) for stem in _stems(word))


def _stems(word: str) -> tuple[str, ...]:
    return (word, *(word.removesuffix(ending) for ending in ("s", "e", "n", "es", "er", "en", "em")))
