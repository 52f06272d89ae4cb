"""A pen for flat illustrations: places, patterns and paints shapes with Pillow.

Everything is a polygon, so that one affine map scales, turns and moves a whole drawing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image, ImageChops, ImageDraw

from retrieval.demo.sample_shop.shapes import Point, Shape, pattern_shapes

SIDE: Final = 128  # pixels of a finished picture
FINE: Final = 4 * SIDE  # drawn four times finer, then averaged down: no jagged edges

Color: TypeAlias = tuple[int, int, int]


def parse_color(text: str) -> Color:
    """Return the color that six hexadecimal digits after # name."""
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def mix(first: Color, second: Color, share: float) -> Color:
    """Return the color `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a 100 x 100 box goes on the fine canvas: scaled and turned about `pivot`, which lands on `at`."""

    scale: float
    degrees: float
    pivot: Point
    at: Point  # in hundredths of the picture

    def points(self, shape: Sequence[Point]) -> Shape:
        """Return the shape's points in pixels of the fine canvas."""
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        unit = FINE / 100
        placed: Shape = []
        for x, y in shape:
            dx, dy = (x - self.pivot[0]) * self.scale, (y - self.pivot[1]) * self.scale
            placed.append(((self.at[0] + dx * cos - dy * sin) * unit, (self.at[1] + dx * sin + dy * cos) * unit))
        return placed


@dataclass(frozen=True, slots=True)
class Paint:
    """The colors of one product: cloth, printed pattern, dark trimmings and light parts."""

    base: Color
    print: Color
    dark: Color
    light: Color


class Pen:
    """Draws one product on a transparent canvas: bodies in patterned cloth, trimmings and details in flat colors."""

    def __init__(self, *, placement: Placement, paint: Paint, pattern: str) -> None:
        self.image = Image.new("RGBA", (FINE, FINE))
        self.paint = paint
        self._placement = placement
        self._draw = ImageDraw.Draw(self.image)
        self._cloth = _print_cloth(pattern, paint=paint, placement=placement)

    def body(self, *shapes: Shape) -> None:
        """Draw shapes cut out of the patterned cloth."""
        self.image.paste(self._cloth, mask=self._mask(shapes, 255))

    def fill(self, color: Color, *shapes: Shape) -> None:
        """Draw shapes in one flat color."""
        for shape in shapes:
            self._draw.polygon(self._placement.points(shape), fill=color)

    def line(self, color: Color, points: Sequence[Point], *, width: float) -> None:
        """Draw a line with round joints and ends; `width` in units of the box."""
        placed = self._placement.points(points)
        pixels = width * self._placement.scale * FINE / 100
        self._draw.line(placed, fill=color, width=round(pixels), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2), fill=color)

    def glaze(self, color: Color, *shapes: Shape, strength: int) -> None:
        """Tint what is drawn within the shapes, by `strength` out of 255."""
        clipped = ImageChops.multiply(self._mask(shapes, strength), self.image.getchannel("A"))
        self.image.paste(color, mask=clipped)

    def _mask(self, shapes: Sequence[Shape], value: int) -> Image.Image:
        mask = Image.new("L", (FINE, FINE))
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            draw.polygon(self._placement.points(shape), fill=value)
        return mask


def _print_cloth(pattern: str, *, paint: Paint, placement: Placement) -> Image.Image:
    """Return a canvas full of the pattern, turned with the drawing; not scaled, so it is legible on small products."""
    image = Image.new("RGBA", (FINE, FINE), paint.base)
    draw = ImageDraw.Draw(image)
    middle = placement.points([(50, 50)])[0]
    turned = Placement(
        scale=1, degrees=placement.degrees, pivot=(50, 50), at=(middle[0] * 100 / FINE, middle[1] * 100 / FINE)
    )
    for shape in pattern_shapes()[pattern]:
        draw.polygon(turned.points(shape), fill=paint.print)
    return image
