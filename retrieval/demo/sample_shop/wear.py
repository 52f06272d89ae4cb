"""How the things that one wears or carries are drawn, in a 100 x 100 box: the first part of the sample shop."""

import math
from collections.abc import Callable
from typing import Final

from retrieval.demo.sample_shop.pen import (
    CREAM,
    DARK_WOOD,
    GOLD,
    INK,
    METAL,
    STEEL,
    Pen,
    Shape,
    box,
    circle,
    curve,
    ellipse,
    mirrored,
    smooth,
)


def _t_shirt(pen: Pen) -> None:
    half = [(39, 13), (27, 17), (5, 37), (17, 52), (27, 45), (26, 91), (50, 92)]
    pen.body(mirrored(half))
    pen.fill(pen.paint.dark, [*curve((39, 13), (50, 32), (61, 13)), *curve((61, 13), (50, 25), (39, 13))])
    pen.shade([(27, 45), (29, 91), (26, 91)], [(73, 45), (71, 91), (74, 91)], [(17, 52), (27, 45), (30, 30)])
    pen.shade([(83, 52), (73, 45), (70, 30)], strength=30)


def _dress(pen: Pen) -> None:
    neck = curve((61, 8), (58, 28), (42, 28), (39, 8))
    hem = curve((88, 88), (72, 95), (28, 95), (12, 88))
    pen.body([(35, 8), (39, 8), *reversed(neck), (61, 8), (65, 8), (67, 24), (64, 45), *hem, (36, 45), (33, 24)])
    pen.shade([(44, 50), (36, 93), (40, 94)], [(56, 50), (64, 93), (60, 94)], strength=45)
    pen.trim(box((35, 43), (65, 49), radius=2))


def _hat(pen: Pen) -> None:
    pen.body(ellipse((50, 70), (46, 14)))
    pen.shade(ellipse((50, 72), (31, 8)), strength=60)
    pen.body(
        [
            *curve((24, 68), (22, 20), (50, 20), (78, 20))[:0],
            *smooth([(24, 66), (30, 30), (50, 23), (70, 30), (76, 66), (50, 74)]),
        ]
    )
    pen.trim([*curve((25, 58), (50, 70), (75, 58)), *curve((77, 67), (50, 80), (23, 67))])


def _boot(pen: Pen) -> None:
    pen.body(
        [(32, 10), (64, 10), (63, 50), *curve((63, 50), (66, 62), (80, 62), (91, 66)), (93, 84), (30, 84), (34, 50)]
    )
    pen.trim(box((28, 8), (68, 19), radius=4))
    pen.fill(INK, box((28, 82), (95, 89), radius=2), box((28, 84), (48, 94), radius=2))
    pen.shine(box((38, 24), (43, 60), radius=2))


def _handbag(pen: Pen) -> None:
    pen.line(pen.paint.dark, curve((30, 46), (30, 2), (70, 2), (70, 46)), width=6)
    pen.body(smooth([(16, 42), (50, 40), (84, 42), (93, 86), (50, 92), (7, 86)]))
    pen.trim([(14, 41), (86, 41), *curve((88, 52), (70, 68), (50, 68), (30, 68)), (12, 52)])
    pen.fill(GOLD, circle(50, 66, radius=5), box((27, 40), (33, 47), radius=2), box((67, 40), (73, 47), radius=2))


def _umbrella(pen: Pen) -> None:
    pen.line(STEEL, [(50, 6), (50, 80)], width=3.4)
    pen.line(DARK_WOOD, [(50, 66), (50, 82), *ellipse((42, 82), (8, 9), arc=(0, 180))], width=5.5)
    edge: Shape = []
    for x in (82, 66, 50, 34, 18):
        edge += ellipse((x, 53), (9.2, 7), arc=(360, 180))
    pen.body([*ellipse((50, 54), (41, 42), arc=(180, 360)), *edge])
    for x in (26, 42, 58, 74):
        pen.line(pen.paint.dark, curve((50, 12), (50 + (x - 50) * 0.9, 24), (x, 52)), width=1.6)


def _backpack(pen: Pen) -> None:
    pen.line(pen.paint.dark, curve((40, 16), (40, 1), (60, 1), (60, 16)), width=5)
    pen.trim(box((10, 50), (26, 84), radius=7), box((74, 50), (90, 84), radius=7))
    pen.body(box((19, 10), (81, 93), radius=20))
    pen.trim(box((27, 56), (73, 86), radius=7))
    pen.body(box((30, 63), (70, 83), radius=5))
    pen.line(METAL, curve((25, 42), (50, 30), (75, 42)), width=2.2)
    pen.fill(METAL, box((64, 39), (68, 48), radius=1.5))


def _sock(pen: Pen) -> None:
    pen.body(
        [
            (36, 12),
            (66, 12),
            (66, 54),
            *curve((66, 56), (90, 60), (97, 88), (74, 91)),
            *curve((74, 91), (48, 94), (32, 84), (36, 60)),
        ]
    )
    pen.trim(box((33, 7), (69, 20), radius=4), smooth([(35, 62), (46, 68), (46, 80), (40, 84), (34, 74)]))
    pen.trim(smooth([(76, 63), (88, 74), (86, 88), (74, 91), (70, 78)]))


def _glove(pen: Pen) -> None:
    fingers = ((28, 24), (41, 12), (54, 9), (67, 16))
    shapes = [box((x, top), (x + 12, 62), radius=6) for x, top in fingers]
    thumb = smooth([(72, 58), (86, 42), (94, 46), (90, 60), (74, 80)])
    pen.body(*shapes, thumb, box((28, 46), (79, 84), radius=8))
    for x in (40.5, 53.5, 66.5):
        pen.line(pen.paint.dark, [(x, 34), (x, 54)], width=1.5)
    pen.trim(box((29, 80), (78, 94), radius=4))


def _scarf(pen: Pen) -> None:
    for left, bottom in ((26, 82), (54, 90)):
        pen.line(pen.paint.dark, [(left + 2, bottom), (left + 2, bottom + 6)], width=2)
        for x in range(left + 5, left + 20, 4):
            pen.line(pen.paint.dark, [(x, bottom), (x, bottom + 6)], width=2)
        pen.body(box((left, 36), (left + 20, bottom), radius=1.5))
    pen.shade(box((44, 44), (46, 82)), [(54, 44), (58, 44), (56, 70)], strength=40)
    pen.body(smooth([(10, 30), (22, 12), (50, 7), (78, 12), (90, 30), (76, 50), (50, 56), (24, 50)]))
    pen.fill(pen.paint.dark, ellipse((50, 25), (25, 9)))
    pen.shade(
        curve((14, 38), (34, 56), (66, 56), (86, 38)) + curve((86, 42), (66, 60), (34, 60), (14, 42)), strength=45
    )


def _watch(pen: Pen) -> None:
    pen.body([(38, 3), (62, 3), (65, 36), (65, 64), (62, 97), (38, 97), (35, 64), (35, 36)])
    pen.fill(METAL, circle(50, 50, radius=29), box((77, 46), (84, 54), radius=2))
    pen.fill(STEEL, circle(50, 50, radius=24.5))
    pen.fill(CREAM, circle(50, 50, radius=22.5))
    for hour in range(0, 12, 3):
        angle = math.tau * hour / 12
        pen.fill(INK, circle(50 + 18 * math.sin(angle), 50 - 18 * math.cos(angle), radius=1.6))
    pen.line(INK, [(50, 50), (41, 40)], width=3)
    pen.line(INK, [(50, 50), (62, 44)], width=2.4)


WEAR: Final[dict[str, Callable[[Pen], None]]] = {
    "T-shirt": _t_shirt,
    "dress": _dress,
    "hat": _hat,
    "boot": _boot,
    "handbag": _handbag,
    "umbrella": _umbrella,
    "backpack": _backpack,
    "sock": _sock,
    "glove": _glove,
    "scarf": _scarf,
    "watch": _watch,
}
