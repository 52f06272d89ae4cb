"""Backgrounds, shadow and light of the sample shop's pictures."""

import functools
from collections.abc import Callable
from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from retrieval.demo.sample_shop.pen import SIDE, Color, mix, parse_color
from retrieval.demo.sample_shop.texts import SHOP

WALLS, FLOORS = ([parse_color(color) for color in SHOP["tints"][part]] for part in ("walls", "floors"))
_BOARDS: Final = ((236, 216, 188), (228, 206, 176), (240, 226, 204), (214, 204, 196))
_WHITE: Final = (255, 255, 255)
_SHADE: Final = (48, 36, 52)
_DOUBLE: Final = 2 * SIDE  # backgrounds are drawn twice as fine
_FLOOR_TOP: Final = 70  # where the wall of a room ends, in hundredths of the picture's height


def _canvas(color: Color) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (_DOUBLE, _DOUBLE), color)
    return image, ImageDraw.Draw(image)


def _plain(rng: Random) -> Image.Image:
    return _canvas(rng.choice(WALLS))[0]


def _room(rng: Random) -> Image.Image:
    wall = rng.choice(WALLS)
    image, draw = _canvas(wall)
    edge = _DOUBLE * _FLOOR_TOP // 100
    draw.rectangle((0, edge, _DOUBLE, _DOUBLE), fill=rng.choice(FLOORS))
    draw.rectangle((0, edge - 9, _DOUBLE, edge), fill=mix(wall, _WHITE, 0.55))
    return image


def _wood(rng: Random) -> Image.Image:
    image, draw = _canvas((0, 0, 0))
    base = rng.choice(_BOARDS)
    boards = rng.choice((4, 5, 6))
    height = _DOUBLE / boards
    for board in range(boards):
        top = round(board * height)
        tone = mix(base, (150, 104, 66), rng.uniform(0.0, 0.16))
        draw.rectangle((0, top, _DOUBLE, round(top + height)), fill=tone)
        for _ in range(4):
            y, left, length = top + rng.uniform(5, height - 5), rng.uniform(-60, 220), rng.uniform(40, 140)
            draw.line((left, y, left + length, y), fill=mix(tone, (130, 90, 58), 0.22), width=2)
        draw.line((0, top, _DOUBLE, top), fill=mix(tone, (96, 62, 38), 0.5), width=2)
    return image


def _tiles(rng: Random) -> Image.Image:
    base = rng.choice(WALLS)
    image, draw = _canvas(mix(base, _WHITE, 0.6))
    side = rng.choice((40, 48, 56))
    left, top = rng.randrange(side), rng.randrange(side)
    for x in range(left - side, _DOUBLE, side):
        for y in range(top - side, _DOUBLE, side):
            tone = mix(base, (120, 130, 150), rng.uniform(0.04, 0.16))
            draw.rounded_rectangle((x, y, x + side - 5, y + side - 5), radius=4, fill=tone)
    return image


def _gradient(rng: Random) -> Image.Image:
    first, second = rng.sample(WALLS, 2)
    outer, inner = _canvas(mix(second, (112, 118, 160), 0.3))[0], _canvas(mix(first, _WHITE, 0.35))[0]
    left, top = rng.randrange(90, 170), rng.randrange(60, 170)
    glow = _radial_gradient(2 * _DOUBLE).crop((left, top, left + _DOUBLE, top + _DOUBLE))
    outer.paste(inner, mask=ImageChops.invert(glow))
    return outer


BACKGROUNDS: Final[dict[str, Callable[[Random], Image.Image]]] = {
    "plain": _plain,
    "room": _room,
    "wood": _wood,
    "tiles": _tiles,
    "gradient": _gradient,
}


def compose(drawing: Image.Image, *, background: str, outline: Color, rng: Random) -> Image.Image:
    """Return the drawing (RGBA, drawn fine) with volume and shadow before its background, `SIDE` pixels square."""
    small = drawing.reduce(drawing.width // SIDE)
    alpha = small.getchannel("A")
    picture = BACKGROUNDS[background](rng).reduce(_DOUBLE // SIDE)
    side = rng.choice((-1, 1))
    shadow = ImageChops.offset(alpha, -3 * side, 4).filter(ImageFilter.GaussianBlur(3.5))
    picture.paste(_SHADE, mask=_scale(shadow, 0.42))
    picture.paste(outline, mask=_scale(alpha.filter(ImageFilter.MaxFilter(3)), 0.55))
    picture.paste(_light(small.convert("RGB"), side=side), mask=alpha)
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.96, 1.04))


def _light(drawing: Image.Image, *, side: int) -> Image.Image:
    """Darken the drawing gently away from the upper left (side 1) or the upper right (side -1)."""
    left, top = SIDE + SIDE // 2 - (SIDE // 3 if side > 0 else SIDE - SIDE // 3), SIDE + SIDE // 4
    falloff = _radial_gradient(3 * SIDE).crop((left, top, left + SIDE, top + SIDE))
    drawing.paste(_SHADE, mask=_scale(falloff, 0.34))
    return drawing


@functools.cache
def _radial_gradient(side: int) -> Image.Image:
    """Return a square that is black in the middle and white towards the corners."""
    return Image.radial_gradient("L").resize((side, side))


def _scale(mask: Image.Image, factor: float) -> Image.Image:
    return mask.point([round(value * factor) for value in range(256)])
