"""A pen for flat illustrations: shapes in a 100 x 100 box (y down), placed, patterned and painted with Pillow.

Everything is a polygon, so that one affine map places, scales and turns a whole thing before it is drawn.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image, ImageChops, ImageDraw

SIDE: Final = 128  # pixels of a finished picture
FINE: Final = 4 * SIDE  # drawn four times finer, then averaged down: no jagged edges

Point: TypeAlias = tuple[float, float]
Shape: TypeAlias = list[Point]
Color: TypeAlias = tuple[int, int, int]

WOOD: Final[Color] = (176, 124, 80)
DARK_WOOD: Final[Color] = (128, 84, 52)
METAL: Final[Color] = (190, 196, 204)
STEEL: Final[Color] = (92, 98, 110)
GOLD: Final[Color] = (222, 178, 84)
CREAM: Final[Color] = (252, 247, 235)
INK: Final[Color] = (52, 52, 62)


def ellipse(center: Point, radii: Point, *, arc: tuple[float, float] = (0, 360)) -> Shape:
    """Points along an ellipse, clockwise from `arc[0]` to `arc[1]` degrees (0 is right, 90 is down)."""
    first, last = arc
    steps = max(5, round(abs(last - first) / 360 * min(48, 10 + 3 * max(radii))))
    angles = [math.radians(first + (last - first) * step / steps) for step in range(steps + 1)]
    return [(center[0] + radii[0] * math.cos(angle), center[1] + radii[1] * math.sin(angle)) for angle in angles]


def circle(x: float, y: float, *, radius: float) -> Shape:
    """Points along a circle."""
    return ellipse((x, y), (radius, radius))


def box(top_left: Point, bottom_right: Point, *, radius: float = 0) -> Shape:
    """A rectangle with round corners."""
    (left, top), (right, bottom) = top_left, bottom_right
    if not radius:
        return [top_left, (right, top), bottom_right, (left, bottom)]
    corners = ((right, top, -90), (right, bottom, 0), (left, bottom, 90), (left, top, 180))
    shape: Shape = []
    for x, y, start in corners:
        center = (x + (radius if x == left else -radius), y + (radius if y == top else -radius))
        shape += ellipse(center, (radius, radius), arc=(start, start + 90))
    return shape


def curve(*controls: Point) -> Shape:
    """Points along the Bezier curve of three or four control points."""
    degree = len(controls) - 1
    shape: Shape = []
    for step in range(17):
        t = step / 16
        weights = [math.comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)]
        shape.append(
            (
                sum(weight * x for weight, (x, _) in zip(weights, controls, strict=True)),
                sum(weight * y for weight, (_, y) in zip(weights, controls, strict=True)),
            )
        )
    return shape


def smooth(points: Sequence[Point]) -> Shape:
    """A closed curve through the points (Catmull-Rom)."""
    count = len(points)
    shape: Shape = []
    for i in range(count):
        before, start, end, after = (points[(i + offset) % count] for offset in (-1, 0, 1, 2))
        first = (start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6)
        second = (end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6)
        shape += curve(start, first, second, end)[:-1]
    return shape


def mirrored(half: Sequence[Point]) -> Shape:
    """The left half of an outline, top to bottom, completed by its mirror image in the line x = 50."""
    return [*half, *((100 - x, y) for x, y in reversed(half))]


def star(center: Point, radius: float, *, tips: int = 5, waist: float = 0.42) -> Shape:
    """A star with one tip up; `waist` is the inner radius as a share of the outer one."""
    reach = [radius * (waist if step % 2 else 1) for step in range(2 * tips)]
    angles = [math.pi * (step / tips - 0.5) for step in range(2 * tips)]
    return [(center[0] + r * math.cos(a), center[1] + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def heart(center: Point, radius: float) -> Shape:
    """A heart; the classic curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled."""
    shape: Shape = []
    for step in range(24):
        t = math.tau * step / 24
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        shape.append((center[0] + radius * math.sin(t) ** 3, center[1] - radius * y / 16))
    return shape


@dataclass(frozen=True, slots=True)
class Place:
    """Where a 100 x 100 box goes on the fine canvas: scaled and turned about `pivot`, which lands on `at`."""

    scale: float
    degrees: float
    pivot: Point
    at: Point  # in hundredths of the picture

    def points(self, shape: Sequence[Point]) -> Shape:
        """The shape's points in pixels of the fine canvas."""
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        unit = FINE / 100
        placed: Shape = []
        for x, y in shape:
            dx, dy = (x - self.pivot[0]) * self.scale, (y - self.pivot[1]) * self.scale
            placed.append(((self.at[0] + dx * cos - dy * sin) * unit, (self.at[1] + dx * sin + dy * cos) * unit))
        return placed


@dataclass(frozen=True, slots=True)
class Paint:
    """The colours of one product: the cloth, what is printed on it, and the tones of its trimmings."""

    base: Color
    print: Color
    dark: Color
    light: Color


class Pen:
    """Draws one thing on a transparent canvas: bodies in the patterned cloth, trimmings and details in flat colour."""

    def __init__(self, *, place: Place, paint: Paint, pattern: str) -> None:
        self.image = Image.new("RGBA", (FINE, FINE))
        self.paint = paint
        self._place = place
        self._draw = ImageDraw.Draw(self.image)
        self._cloth = cloth(pattern, paint=paint, place=place)

    def body(self, *shapes: Shape) -> None:
        """Shapes cut out of the patterned cloth."""
        self.image.paste(self._cloth, mask=self._mask(shapes, 255))

    def fill(self, color: Color, *shapes: Shape) -> None:
        """Shapes in one flat colour."""
        for shape in shapes:
            self._draw.polygon(self._place.points(shape), fill=color)

    def trim(self, *shapes: Shape) -> None:
        """Shapes in the darker tone of the product's colour."""
        self.fill(self.paint.dark, *shapes)

    def line(self, color: Color, points: Sequence[Point], *, width: float) -> None:
        """A line with round joints and ends; `width` in units of the box."""
        placed = self._place.points(points)
        pixels = width * self._place.scale * FINE / 100
        self._draw.line(placed, fill=color, width=round(pixels), joint="curve")
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2), fill=color)

    def shine(self, *shapes: Shape, strength: int = 70) -> None:
        """A lighter sheen over what is drawn already, of `strength` out of 255."""
        self._glaze((255, 255, 255), shapes, strength)

    def shade(self, *shapes: Shape, strength: int = 50) -> None:
        """A darker tone over what is drawn already, of `strength` out of 255."""
        self._glaze((20, 16, 40), shapes, strength)

    def _glaze(self, color: Color, shapes: Sequence[Shape], strength: int) -> None:
        clipped = ImageChops.multiply(self._mask(shapes, strength), self.image.getchannel("A"))
        self.image.paste(color, mask=clipped)

    def _mask(self, shapes: Sequence[Shape], value: int) -> Image.Image:
        mask = Image.new("L", (FINE, FINE))
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            draw.polygon(self._place.points(shape), fill=value)
        return mask


_REACH: Final = 56  # how far a pattern goes from its middle: beyond the corners of a large thing


def _rows(step: float) -> list[Point]:
    """The points of a grid over the cloth, every other row moved by half a step."""
    count = math.ceil(_REACH / step)
    return [
        (50 + step * (column + row % 2 / 2), 50 + step * row * 0.87)
        for row in range(-count, count + 1)
        for column in range(-count, count + 1)
    ]


def _plain() -> list[Shape]:
    return []


def _striped() -> list[Shape]:
    return [box((50 - _REACH, y), (50 + _REACH, y + 5.5)) for y in range(-5, 106, 11)]


def _dotted() -> list[Shape]:
    return [circle(x, y, radius=2.7) for x, y in _rows(9.5)]


def _checked() -> list[Shape]:
    return [box((x, y), (x + 8, y + 8)) for y in range(-6, 106, 8) for x in range(-6 - (y + 6) % 16, 106, 16)]


def _zigzag() -> list[Shape]:
    shapes: list[Shape] = []
    for y in range(-6, 106, 12):
        upper = [(float(x), y + (6.0 if x % 12 else 0.0)) for x in range(-6, 112, 6)]
        shapes.append([*upper, *((x, y + 4.8) for x, y in reversed(upper))])
    return shapes


def _starred() -> list[Shape]:
    return [star((x, y), 6.2) for x, y in _rows(15)]


def _hearts() -> list[Shape]:
    return [heart((x, y), 4.9) for x, y in _rows(14)]


def _floral() -> list[Shape]:
    shapes: list[Shape] = []
    for x, y in _rows(16):
        petals = [math.radians(72 * petal - 90) for petal in range(5)]
        shapes += [circle(x + 3.7 * math.cos(a), y + 3.7 * math.sin(a), radius=2.6) for a in petals]
    return shapes


PATTERNS: Final[dict[str, Callable[[], list[Shape]]]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "zigzag": _zigzag,
    "starred": _starred,
    "hearts": _hearts,
    "floral": _floral,
}


def cloth(pattern: str, *, paint: Paint, place: Place) -> Image.Image:
    """A canvas full of the pattern, turned with the thing, of one size on small and large ones: legible."""
    image = Image.new("RGBA", (FINE, FINE), paint.base)
    draw = ImageDraw.Draw(image)
    middle = place.points([(50, 50)])[0]
    turned = Place(scale=1, degrees=place.degrees, pivot=(50, 50), at=(middle[0] * 100 / FINE, middle[1] * 100 / FINE))
    for shape in _shapes(pattern):
        draw.polygon(turned.points(shape), fill=paint.print)
    return image


@functools.cache
def _shapes(pattern: str) -> list[Shape]:
    return PATTERNS[pattern]()
