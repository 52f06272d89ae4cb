"""Shapes and patterns of flat illustrations, as polygons in a 100 x 100 box with y down."""

import functools
import math
from collections.abc import Sequence
from typing import Final, TypeAlias

Point: TypeAlias = tuple[float, float]
Shape: TypeAlias = list[Point]

_REACH: Final = 56  # a pattern extends this far from its centre: beyond the corners of a large product


def ellipse(center: Point, radii: Point, *, arc: tuple[float, float] = (0, 360)) -> Shape:
    """Return points along an ellipse, clockwise from `arc[0]` to `arc[1]` degrees (0 is right, 90 is down)."""
    first, last = arc
    steps = max(5, round(abs(last - first) / 360 * min(48, 10 + 3 * max(radii))))
    angles = [math.radians(first + (last - first) * step / steps) for step in range(steps + 1)]
    return [(center[0] + radii[0] * math.cos(angle), center[1] + radii[1] * math.sin(angle)) for angle in angles]


def circle(x: float, y: float, *, radius: float) -> Shape:
    """Return points along a circle."""
    return ellipse((x, y), (radius, radius))


def box(top_left: Point, bottom_right: Point, *, radius: float = 0) -> Shape:
    """Return a rectangle with round corners."""
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
    """Return points along the Bezier curve of three or four control points."""
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
    """Return a closed curve through the points (Catmull-Rom)."""
    count = len(points)
    shape: Shape = []
    for i in range(count):
        before, start, end, after = (points[(i + offset) % count] for offset in (-1, 0, 1, 2))
        first = (start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6)
        second = (end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6)
        shape += curve(start, first, second, end)[:-1]
    return shape


def mirror(half: Sequence[Point]) -> Shape:
    """Complete the left half of an outline, top to bottom, by its mirror image in the line x = 50."""
    return [*half, *((100 - x, y) for x, y in reversed(half))]


def star(center: Point, radius: float, *, tips: int = 5, waist: float = 0.42) -> Shape:
    """Return a star with one tip up; `waist` is the ratio of the inner radius to the outer one."""
    reach = [radius * (waist if step % 2 else 1) for step in range(2 * tips)]
    angles = [math.pi * (step / tips - 0.5) for step in range(2 * tips)]
    return [(center[0] + r * math.cos(a), center[1] + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def heart(center: Point, radius: float) -> Shape:
    """Return a heart: the classic curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled."""
    shape: Shape = []
    for step in range(24):
        t = math.tau * step / 24
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        shape.append((center[0] + radius * math.sin(t) ** 3, center[1] - radius * y / 16))
    return shape


def _grid(step: float) -> list[Point]:
    """Return the points of a grid over the cloth, every other row moved by half a step."""
    count = math.ceil(_REACH / step)
    return [
        (50 + step * (column + row % 2 / 2), 50 + step * row * 0.87)
        for row in range(-count, count + 1)
        for column in range(-count, count + 1)
    ]


def _zigzags() -> list[Shape]:
    shapes: list[Shape] = []
    for y in range(-6, 106, 12):
        upper = [(float(x), y + (6.0 if x % 12 else 0.0)) for x in range(-6, 112, 6)]
        shapes.append([*upper, *((x, y + 4.8) for x, y in reversed(upper))])
    return shapes


def _checks() -> list[Shape]:
    return [box((x, y), (x + 8, y + 8)) for y in range(-6, 106, 8) for x in range(-6 - (y + 6) % 16, 106, 16)]


def _blossoms() -> list[Shape]:
    petals = [math.radians(72 * petal - 90) for petal in range(5)]
    return [
        circle(x + 3.7 * math.cos(angle), y + 3.7 * math.sin(angle), radius=2.6)
        for x, y in _grid(16)
        for angle in petals
    ]


@functools.cache
def pattern_shapes() -> dict[str, list[Shape]]:
    """Return the printed shapes of each pattern."""
    return {
        "plain": [],
        "striped": [box((50 - _REACH, y), (50 + _REACH, y + 5.5)) for y in range(-5, 106, 11)],
        "dotted": [circle(x, y, radius=2.7) for x, y in _grid(9.5)],
        "checked": _checks(),
        "zigzag": _zigzags(),
        "starred": [star(point, 6.2) for point in _grid(15)],
        "hearts": [heart(point, 4.9) for point in _grid(14)],
        "floral": _blossoms(),
    }
