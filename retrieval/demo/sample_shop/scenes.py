"""Where the sample shop's things stand: backgrounds, shadow and light, put together into the finished picture."""

import functools
from collections.abc import Callable
from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from retrieval.demo.sample_shop.pen import SIDE, Color

FLOOR: Final = 70  # hundredths of the picture's height where the wall of a room ends
TINTS: Final[tuple[Color, ...]] = (
    (246, 234, 214),
    (224, 238, 220),
    (214, 230, 246),
    (248, 222, 218),
    (232, 222, 246),
    (214, 240, 238),
    (250, 240, 200),
    (232, 232, 236),
    (250, 224, 200),
    (208, 222, 232),
)
_FLOORS: Final[tuple[Color, ...]] = (
    (214, 182, 148),
    (196, 170, 146),
    (186, 196, 204),
    (204, 190, 206),
    (190, 204, 186),
)
_DOUBLE: Final = 2 * SIDE  # backgrounds are drawn twice as fine
_SHADE: Final = (48, 36, 52)


def mix(first: Color, second: Color, share: float) -> Color:
    """The colour `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _plain(chance: Random) -> Image.Image:
    return Image.new("RGB", (_DOUBLE, _DOUBLE), chance.choice(TINTS))


def _room(chance: Random) -> Image.Image:
    wall = chance.choice(TINTS)
    image = Image.new("RGB", (_DOUBLE, _DOUBLE), wall)
    draw = ImageDraw.Draw(image)
    edge = _DOUBLE * FLOOR // 100
    draw.rectangle((0, edge, _DOUBLE, _DOUBLE), fill=chance.choice(_FLOORS))
    draw.rectangle((0, edge - 9, _DOUBLE, edge), fill=mix(wall, (255, 255, 255), 0.55))
    return image


def _wood(chance: Random) -> Image.Image:
    image = Image.new("RGB", (_DOUBLE, _DOUBLE))
    draw = ImageDraw.Draw(image)
    base = chance.choice(((236, 216, 188), (228, 206, 176), (240, 226, 204), (214, 204, 196)))
    boards = chance.choice((4, 5, 6))
    height = _DOUBLE / boards
    for board in range(boards):
        top = round(board * height)
        tone = mix(base, (150, 104, 66), chance.uniform(0.0, 0.16))
        draw.rectangle((0, top, _DOUBLE, round(top + height)), fill=tone)
        for _ in range(4):
            y, left, length = top + chance.uniform(5, height - 5), chance.uniform(-60, 220), chance.uniform(40, 140)
            draw.line((left, y, left + length, y), fill=mix(tone, (130, 90, 58), 0.22), width=2)
        draw.line((0, top, _DOUBLE, top), fill=mix(tone, (96, 62, 38), 0.5), width=2)
    return image


def _tiles(chance: Random) -> Image.Image:
    base = chance.choice(TINTS)
    image = Image.new("RGB", (_DOUBLE, _DOUBLE), mix(base, (255, 255, 255), 0.6))
    draw = ImageDraw.Draw(image)
    side = chance.choice((40, 48, 56))
    left, top = chance.randrange(side), chance.randrange(side)
    for x in range(left - side, _DOUBLE, side):
        for y in range(top - side, _DOUBLE, side):
            tone = mix(base, (120, 130, 150), chance.uniform(0.04, 0.16))
            draw.rounded_rectangle((x, y, x + side - 5, y + side - 5), radius=4, fill=tone)
    return image


def _gradient(chance: Random) -> Image.Image:
    first, second = chance.sample(TINTS, 2)
    outer = Image.new("RGB", (_DOUBLE, _DOUBLE), mix(second, (112, 118, 160), 0.3))
    inner = Image.new("RGB", (_DOUBLE, _DOUBLE), mix(first, (255, 255, 255), 0.35))
    glow = _glow(2 * _DOUBLE)
    left, top = chance.randrange(90, 170), chance.randrange(60, 170)
    outer.paste(inner, mask=ImageChops.invert(glow.crop((left, top, left + _DOUBLE, top + _DOUBLE))))
    return outer


BACKGROUNDS: Final[dict[str, Callable[[Random], Image.Image]]] = {
    "plain": _plain,
    "room": _room,
    "wood": _wood,
    "tiles": _tiles,
    "gradient": _gradient,
}


def compose(thing: Image.Image, *, background: str, outline: Color, chance: Random) -> Image.Image:
    """The thing (RGBA, drawn fine) with volume and shadow before its background, `SIDE` pixels square."""
    small = thing.reduce(thing.width // SIDE)
    alpha = small.getchannel("A")
    picture = BACKGROUNDS[background](chance).reduce(_DOUBLE // SIDE)
    side = chance.choice((-1, 1))
    _shadow(picture, alpha, shift=(-3 * side, 4))
    picture.paste(outline, mask=_scaled(alpha.filter(ImageFilter.MaxFilter(3)), 0.55))
    picture.paste(_lit(small.convert("RGB"), side=side), mask=alpha)
    return ImageEnhance.Brightness(picture).enhance(chance.uniform(0.96, 1.04))


def _shadow(picture: Image.Image, alpha: Image.Image, *, shift: tuple[int, int]) -> None:
    soft = ImageChops.offset(alpha, *shift).filter(ImageFilter.GaussianBlur(3.5))
    picture.paste(_SHADE, mask=_scaled(soft, 0.42))


def _lit(thing: Image.Image, *, side: int) -> Image.Image:
    """A gentle falloff of light away from the upper left (side 1) or the upper right (side -1)."""
    falloff = _glow(3 * SIDE)
    left = SIDE + SIDE // 2 - (SIDE // 3 if side > 0 else SIDE - SIDE // 3)
    dark = falloff.crop((left, SIDE + SIDE // 4, left + SIDE, 2 * SIDE + SIDE // 4))
    shaded = thing.copy()
    shaded.paste(_SHADE, mask=_scaled(dark, 0.34))
    return shaded


@functools.cache
def _glow(side: int) -> Image.Image:
    """Black in the middle, white towards the corners."""
    return Image.radial_gradient("L").resize((side, side))


def _scaled(mask: Image.Image, share: float) -> Image.Image:
    return mask.point([round(value * share) for value in range(256)])
