"""Draws a product by the strokes of drawings.toml.

A stroke is a verb of the pen with its color, width or strength, a colon, and shapes between semicolons. A shape is made
of outlines joined by `+`: a name and its numbers, after `reversed` from end to start; `mirror` completes a left half.
"""

import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final

from retrieval.demo.sample_shop.pen import Color, Pen, parse_color
from retrieval.demo.sample_shop.shapes import Shape, box, circle, curve, ellipse, mirror, smooth

DRAWINGS: Final[dict[str, Any]] = tomllib.loads((files(__package__) / "drawings.toml").read_text(encoding="utf-8"))
_COLORS: Final[dict[str, str]] = DRAWINGS["colors"]

_OUTLINES: Final[dict[str, Callable[..., Shape]]] = {
    "path": lambda *numbers: _points(numbers),
    "curve": lambda *numbers: curve(*_points(numbers)),
    "smooth": lambda *numbers: smooth(_points(numbers)),
    "circle": lambda x, y, radius: circle(x, y, radius=radius),
    "ellipse": lambda x, y, width, height, first=0, last=360: ellipse((x, y), (width, height), arc=(first, last)),
    "box": lambda left, top, right, bottom, radius=0: box((left, top), (right, bottom), radius=radius),
}


def draw(kind: str, pen: Pen) -> None:
    """Draw a product of this kind."""
    for stroke in DRAWINGS["strokes"][kind]:
        head, _, text = stroke.partition(": ")
        shapes = [_parse_shape(shape) for shape in text.split("; ")]
        match head.split():
            case ["body"]:
                pen.body(*shapes)
            case ["fill", color]:
                pen.fill(_color(color, pen), *shapes)
            case ["line", color, width]:
                pen.line(_color(color, pen), shapes[0], width=float(width))
            case ["shine", strength]:
                pen.glaze((255, 255, 255), *shapes, strength=int(strength))
            case ["shade", strength]:
                pen.glaze((20, 16, 40), *shapes, strength=int(strength))


def _color(name: str, pen: Pen) -> Color:
    """Return a tone of the product's paint, a named color or one in hexadecimal digits."""
    tone: Color | None = getattr(pen.paint, name, None)
    return tone or parse_color(_COLORS.get(name, name))


def _parse_shape(text: str) -> Shape:
    shape: Shape = []
    for outline in text.removeprefix("mirror ").split(" + "):
        name, *numbers = outline.removeprefix("reversed ").split()
        points = _OUTLINES[name](*map(float, numbers))
        shape += points[::-1] if outline.startswith("reversed ") else points
    return mirror(shape) if text.startswith("mirror ") else shape


def _points(numbers: Sequence[float]) -> Shape:
    return list(zip(numbers[::2], numbers[1::2], strict=True))
