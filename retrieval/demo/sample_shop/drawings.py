"""How each kind of product is drawn, in a 100 x 100 box: the function of its name, "gift box" by `gift_box`."""

import math
from typing import Final

from retrieval.demo.sample_shop.pen import CREAM, DARK_WOOD, GOLD, INK, METAL, STEEL, WOOD, Pen
from retrieval.demo.sample_shop.shapes import box, circle, curve, ellipse, mirror, smooth

LEAF: Final = (118, 156, 104)
FLAME: Final = (250, 176, 62)


def draw(kind: str, pen: Pen) -> None:
    """Draw a product of this kind."""
    globals()[kind.lower().replace("-", "_").replace(" ", "_")](pen)


def t_shirt(pen: Pen) -> None:
    half = [(39, 13), (27, 17), (5, 37), (17, 52), (27, 45), (26, 91), (50, 92)]
    pen.body(mirror(half))
    pen.fill(pen.paint.dark, [*curve((39, 13), (50, 32), (61, 13)), *curve((61, 13), (50, 25), (39, 13))])
    pen.shade([(27, 45), (29, 91), (26, 91)], [(73, 45), (71, 91), (74, 91)], [(17, 52), (27, 45), (30, 30)])
    pen.shade([(83, 52), (73, 45), (70, 30)], strength=30)


def dress(pen: Pen) -> None:
    neck = curve((61, 8), (58, 28), (42, 28), (39, 8))
    hem = curve((88, 88), (72, 95), (28, 95), (12, 88))
    pen.body([(35, 8), (39, 8), *reversed(neck), (61, 8), (65, 8), (67, 24), (64, 45), *hem, (36, 45), (33, 24)])
    pen.shade([(44, 50), (36, 93), (40, 94)], [(56, 50), (64, 93), (60, 94)], strength=45)
    pen.trim(box((35, 43), (65, 49), radius=2))


def hat(pen: Pen) -> None:
    pen.body(ellipse((50, 70), (46, 14)))
    pen.shade(ellipse((50, 72), (31, 8)), strength=60)
    pen.body(smooth([(24, 66), (30, 30), (50, 23), (70, 30), (76, 66), (50, 74)]))
    pen.trim([*curve((25, 58), (50, 70), (75, 58)), *curve((77, 67), (50, 80), (23, 67))])


def boot(pen: Pen) -> None:
    instep = curve((63, 50), (66, 62), (80, 62), (91, 66))
    pen.body([(32, 10), (64, 10), (63, 50), *instep, (93, 84), (30, 84), (34, 50)])
    pen.trim(box((28, 8), (68, 19), radius=4))
    pen.fill(INK, box((28, 82), (95, 89), radius=2), box((28, 84), (48, 94), radius=2))
    pen.shine(box((38, 24), (43, 60), radius=2))


def handbag(pen: Pen) -> None:
    pen.line(pen.paint.dark, curve((30, 46), (30, 2), (70, 2), (70, 46)), width=6)
    pen.body(smooth([(16, 42), (50, 40), (84, 42), (93, 86), (50, 92), (7, 86)]))
    pen.trim([(14, 41), (86, 41), *curve((88, 52), (70, 68), (50, 68), (30, 68)), (12, 52)])
    pen.fill(GOLD, circle(50, 66, radius=5), box((27, 40), (33, 47), radius=2), box((67, 40), (73, 47), radius=2))


def umbrella(pen: Pen) -> None:
    pen.line(STEEL, [(50, 6), (50, 80)], width=3.4)
    pen.line(DARK_WOOD, [(50, 66), (50, 82), *ellipse((42, 82), (8, 9), arc=(0, 180))], width=5.5)
    edge = [point for x in (82, 66, 50, 34, 18) for point in ellipse((x, 53), (9.2, 7), arc=(360, 180))]
    pen.body([*ellipse((50, 54), (41, 42), arc=(180, 360)), *edge])
    for x in (26, 42, 58, 74):
        pen.line(pen.paint.dark, curve((50, 12), (50 + (x - 50) * 0.9, 24), (x, 52)), width=1.6)


def backpack(pen: Pen) -> None:
    pen.line(pen.paint.dark, curve((40, 16), (40, 1), (60, 1), (60, 16)), width=5)
    pen.trim(box((10, 50), (26, 84), radius=7), box((74, 50), (90, 84), radius=7))
    pen.body(box((19, 10), (81, 93), radius=20))
    pen.trim(box((27, 56), (73, 86), radius=7))
    pen.body(box((30, 63), (70, 83), radius=5))
    pen.line(METAL, curve((25, 42), (50, 30), (75, 42)), width=2.2)
    pen.fill(METAL, box((64, 39), (68, 48), radius=1.5))


def sock(pen: Pen) -> None:
    heel, toe = curve((74, 91), (48, 94), (32, 84), (36, 60)), curve((66, 56), (90, 60), (97, 88), (74, 91))
    pen.body([(36, 12), (66, 12), (66, 54), *toe, *heel])
    pen.trim(box((33, 7), (69, 20), radius=4), smooth([(35, 62), (46, 68), (46, 80), (40, 84), (34, 74)]))
    pen.trim(smooth([(76, 63), (88, 74), (86, 88), (74, 91), (70, 78)]))


def glove(pen: Pen) -> None:
    fingers = ((28, 24), (41, 12), (54, 9), (67, 16))
    shapes = [box((x, top), (x + 12, 62), radius=6) for x, top in fingers]
    thumb = smooth([(72, 58), (86, 42), (94, 46), (90, 60), (74, 80)])
    pen.body(*shapes, thumb, box((28, 46), (79, 84), radius=8))
    for x in (40.5, 53.5, 66.5):
        pen.line(pen.paint.dark, [(x, 34), (x, 54)], width=1.5)
    pen.trim(box((29, 80), (78, 94), radius=4))


def scarf(pen: Pen) -> None:
    for left, bottom in ((26, 82), (54, 90)):
        pen.line(pen.paint.dark, [(left + 2, bottom), (left + 2, bottom + 6)], width=2)
        for x in range(left + 5, left + 20, 4):
            pen.line(pen.paint.dark, [(x, bottom), (x, bottom + 6)], width=2)
        pen.body(box((left, 36), (left + 20, bottom), radius=1.5))
    pen.shade(box((44, 44), (46, 82)), [(54, 44), (58, 44), (56, 70)], strength=40)
    pen.body(smooth([(10, 30), (22, 12), (50, 7), (78, 12), (90, 30), (76, 50), (50, 56), (24, 50)]))
    pen.fill(pen.paint.dark, ellipse((50, 25), (25, 9)))
    fold = curve((14, 38), (34, 56), (66, 56), (86, 38)) + curve((86, 42), (66, 60), (34, 60), (14, 42))
    pen.shade(fold, strength=45)


def watch(pen: Pen) -> None:
    pen.body([(38, 3), (62, 3), (65, 36), (65, 64), (62, 97), (38, 97), (35, 64), (35, 36)])
    pen.fill(METAL, circle(50, 50, radius=29), box((77, 46), (84, 54), radius=2))
    pen.fill(STEEL, circle(50, 50, radius=24.5))
    pen.fill(CREAM, circle(50, 50, radius=22.5))
    for hour in range(0, 12, 3):
        angle = math.tau * hour / 12
        pen.fill(INK, circle(50 + 18 * math.sin(angle), 50 - 18 * math.cos(angle), radius=1.6))
    pen.line(INK, [(50, 50), (41, 40)], width=3)
    pen.line(INK, [(50, 50), (62, 44)], width=2.4)


def mug(pen: Pen) -> None:
    pen.line(pen.paint.dark, ellipse((70, 56), (18, 18), arc=(-100, 100)), width=8)
    pen.body([*ellipse((43, 30), (31, 7), arc=(180, 360)), *ellipse((43, 84), (29, 9), arc=(0, 180))])
    pen.fill(pen.paint.light, ellipse((43, 30), (31, 7.5)))
    pen.fill((98, 62, 42), ellipse((43, 31), (27, 5.4)))
    pen.shine(box((18, 40), (24, 80), radius=3))


def chair(pen: Pen) -> None:
    for top, foot in ((30, 27), (70, 73)):
        pen.line(DARK_WOOD, [(top, 62), (foot, 86)], width=5)
    for x in (27, 73):
        pen.line(WOOD, [(x, 40), (x, 60)], width=5)
    pen.body(box((21, 6), (79, 44), radius=9))
    pen.body(smooth([(22, 57), (78, 57), (86, 68), (14, 68)]))
    pen.trim(box((15, 66), (85, 73), radius=3))
    for top, foot in ((20, 16), (80, 84)):
        pen.line(WOOD, [(top, 73), (foot, 93)], width=6)


def lamp(pen: Pen) -> None:
    pen.line(GOLD, [(50, 50), (50, 86)], width=5)
    pen.fill(GOLD, ellipse((50, 88), (20, 6)))
    pen.fill((255, 240, 190), ellipse((50, 54), (33, 6)))
    pen.body([(33, 8), (67, 8), (87, 52), *curve((87, 54), (50, 62), (13, 54)), (13, 52)])
    pen.shine([(38, 8), (46, 8), (40, 56), (24, 55)], strength=60)


def clock(pen: Pen) -> None:
    for x, turn in ((24, -1), (76, 1)):
        pen.line(STEEL, [(x, 84), (x + 6 * turn, 94)], width=6)
        pen.trim(ellipse((x + turn, 18), (15, 12)))
    pen.line(STEEL, [(50, 16), (50, 6)], width=6)
    pen.body(circle(50, 54, radius=39))
    pen.fill(CREAM, circle(50, 54, radius=25))
    for hour in range(12):
        angle = math.tau * hour / 12
        pen.fill(INK, circle(50 + 20.5 * math.sin(angle), 54 - 20.5 * math.cos(angle), radius=1.4))
    pen.line(INK, [(50, 54), (50, 38)], width=3)
    pen.line(INK, [(50, 54), (61, 59)], width=3.6)


def bottle(pen: Pen) -> None:
    half = [(42, 18), (41, 26), *curve((41, 26), (30, 34), (30, 44)), (30, 86), *curve((30, 86), (30, 94), (38, 94))]
    pen.body(mirror(half))
    pen.fill(METAL, box((39, 6), (61, 19), radius=3))
    pen.fill(STEEL, box((39, 15), (61, 19), radius=1))
    pen.shine(box((35, 44), (40, 86), radius=2.5))


def guitar(pen: Pen) -> None:
    left, right = [(34, 48), (31, 57), (34, 64), (26, 76), (34, 91)], [(66, 91), (74, 76), (66, 64), (69, 57), (66, 48)]
    pen.body(smooth([(50, 46), *left, (50, 94), *right]))
    pen.fill(DARK_WOOD, box((46.5, 16), (53.5, 62)))
    pen.fill(INK, circle(50, 66, radius=7.5))
    pen.fill(DARK_WOOD, box((38, 82), (62, 87), radius=2), [(44, 16), (43, 4), (57, 4), (56, 16)])
    for y in (7, 12):
        pen.fill(METAL, circle(41, y, radius=2), circle(59, y, radius=2))
    for x in (48.3, 50, 51.7):
        pen.line(CREAM, [(x, 8), (x, 84)], width=0.7)


def bicycle(pen: Pen) -> None:
    for x in (22, 78):
        pen.body(circle(x, 68, radius=17))
        pen.line(INK, circle(x, 68, radius=18.5), width=4.6)
        pen.fill(METAL, circle(x, 68, radius=4))
    for points in ([(22, 68), (37, 40), (68, 40), (47, 68), (22, 68)], [(47, 68), (34, 32)], [(78, 68), (65, 28)]):
        pen.line(pen.paint.dark, points, width=5.6)
        pen.line(pen.paint.base, points, width=4)
    pen.line(INK, curve((64, 28), (78, 20), (82, 32)), width=4)
    pen.fill(INK, smooth([(24, 28), (44, 28), (42, 33), (28, 34)]), circle(47, 68, radius=5))


def ball(pen: Pen) -> None:
    pen.body(circle(50, 52, radius=41))
    pen.shade([*ellipse((50, 52), (41, 41), arc=(-20, 125)), *ellipse((44, 46), (39, 39), arc=(125, -20))], strength=70)
    pen.shine(ellipse((35, 33), (12, 8)), strength=130)


def kite(pen: Pen) -> None:
    tail = curve((50, 66), (62, 76), (36, 84), (52, 97))
    pen.line(STEEL, tail, width=1.6)
    for x, y in tail[5::5]:
        pen.trim([(x, y), (x - 7, y - 4), (x - 7, y + 4)], [(x, y), (x + 7, y - 4), (x + 7, y + 4)])
    pen.body([(50, 3), (82, 30), (50, 70), (18, 30)])
    pen.shade([(50, 3), (82, 30), (50, 70)], strength=36)
    pen.line(CREAM, [(50, 4), (50, 69)], width=1.8)
    pen.line(CREAM, [(19, 30), (81, 30)], width=1.8)


def tent(pen: Pen) -> None:
    for x in (4, 96):
        pen.line(WOOD, [(x, 86), (50 + (x - 50) * 0.5, 52)], width=1.5)
    pen.line(DARK_WOOD, [(46, 8), (52, 20)], width=3)
    pen.line(DARK_WOOD, [(54, 8), (48, 20)], width=3)
    pen.body([(50, 14), *curve((50, 14), (72, 50), (94, 88)), *curve((6, 88), (28, 50), (50, 14))])
    pen.fill((58, 46, 58), [(50, 34), *curve((50, 34), (60, 62), (68, 88)), *curve((32, 88), (40, 62), (50, 34))])
    pen.trim([(50, 34), (32, 88), (24, 88), (42, 58)], [(50, 34), (68, 88), (76, 88), (58, 58)])


def teapot(pen: Pen) -> None:
    pen.line(pen.paint.dark, ellipse((24, 58), (17, 17), arc=(80, 280)), width=7)
    pen.body([(66, 66), *curve((66, 66), (84, 66), (78, 40), (94, 36)), *curve((98, 42), (90, 60), (94, 84), (64, 80))])
    pen.body(ellipse((48, 62), (31, 27)))
    pen.trim(box((34, 86), (62, 93), radius=3), ellipse((48, 36), (19, 5)))
    pen.body([*ellipse((48, 34), (17, 13), arc=(180, 360))])
    pen.trim(circle(48, 19, radius=5.5))
    pen.shine(ellipse((34, 54), (6, 11)))


def vase(pen: Pen) -> None:
    for x, y in ((30, 14), (50, 7), (71, 15)):
        pen.line(LEAF, curve((50, 44), (50 + (x - 50) * 0.4, 30), (x, y)), width=2)
        pen.fill(LEAF, ellipse(((x + 50) / 2 + 4, 26), (4, 2)))
        pen.fill(CREAM, *(circle(x + dx, y + dy, radius=4.2) for dx, dy in ((-4, 0), (4, 0), (0, -4), (0, 4))))
        pen.fill(GOLD, circle(x, y, radius=3))
    pen.body(smooth([(38, 40), (41, 50), (27, 66), (34, 92), (66, 92), (73, 66), (59, 50), (62, 40)]))
    pen.trim(ellipse((50, 39), (14, 3.6)))
    pen.shine(ellipse((37, 68), (4, 11)))


def cushion(pen: Pen) -> None:
    puffy = smooth([(8, 10), (50, 17), (92, 10), (85, 50), (92, 90), (50, 84), (8, 90), (15, 50)])
    pen.line(pen.paint.dark, puffy, width=5)
    pen.body(puffy)
    pen.shade(smooth([(92, 12), (88, 50), (91, 88), (50, 83), (12, 88), (50, 76), (76, 50)]), strength=34)
    pen.shine(smooth([(18, 18), (44, 22), (30, 30), (22, 44)]), strength=50)


def table(pen: Pen) -> None:
    for wood, x, bottom in ((DARK_WOOD, 30, 82), (DARK_WOOD, 70, 82), (WOOD, 16, 90), (WOOD, 84, 90)):
        pen.line(wood, [(x, 40), (x, bottom)], width=6)
    drape = [point for x in (88, 69, 50, 31, 12) for point in ellipse((x, 56), (9.5, 7), arc=(0, 180))]
    pen.body([(14, 24), (86, 24), (97.5, 38), (97.5, 56), *drape, (2.5, 38)])
    pen.shine([(14, 24), (86, 24), (97.5, 38), (2.5, 38)], strength=66)
    pen.shade(*([(x - 2.0, 40.0), (x + 2.0, 40.0), (float(x), 60.0)] for x in (22, 41, 60, 79)), strength=40)


def book(pen: Pen) -> None:
    pen.trim(box((18, 8), (80, 94), radius=4))
    pen.fill(CREAM, box((24, 82), (81, 91), radius=2))
    for y in (84.5, 87, 89):
        pen.line((214, 204, 186), [(26, y), (80, y)], width=0.7)
    pen.body(box((18, 6), (82, 84), radius=4))
    pen.trim(box((18, 6), (29, 84), radius=3))
    pen.fill(
        GOLD, box((20, 20), (27, 23)), box((20, 66), (27, 69)), [(66, 82), (73, 82), (73, 97), (69.5, 93), (66, 97)]
    )


def candle(pen: Pen) -> None:
    pen.fill(STEEL, ellipse((50, 88), (38, 7)))
    pen.fill(METAL, ellipse((50, 86), (38, 7)))
    pen.body([*ellipse((50, 40), (23, 6), arc=(180, 360)), *ellipse((50, 84), (23, 6), arc=(0, 180))])
    pen.fill(pen.paint.light, ellipse((50, 40), (23, 6)))
    pen.line(INK, [(50, 40), (50, 30)], width=1.8)
    pen.fill(FLAME, smooth([(50, 7), (57, 22), (55, 32), (50, 35), (45, 32), (43, 22)]))
    pen.fill((255, 232, 140), smooth([(50, 19), (53, 26), (50, 33), (47, 26)]))
    pen.shine(box((32, 50), (37, 82), radius=2.5))


def boat(pen: Pen) -> None:
    pen.line(DARK_WOOD, [(50, 5), (50, 76)], width=3.4)
    pen.body([(53, 8), *curve((53, 8), (78, 36), (86, 66)), (53, 66)])
    pen.body([(47, 18), (47, 66), *curve((18, 66), (30, 46), (47, 18))])
    pen.trim([(6, 72), (94, 72), *curve((94, 72), (88, 92), (74, 92)), *curve((26, 92), (12, 92), (6, 72))])
    pen.fill(CREAM, [(7, 76), (93, 76), (92, 80), (8, 80)])


def sofa(pen: Pen) -> None:
    for x in (16, 84):
        pen.line(DARK_WOOD, [(x, 78), (x, 88)], width=6)
    pen.body(box((12, 22), (88, 66), radius=11))
    pen.shade(box((12, 50), (88, 66)), strength=44)
    pen.body(box((14, 54), (86, 72), radius=5))
    pen.shade(box((49.3, 26), (50.7, 72)), strength=90)
    pen.trim(box((10, 68), (90, 82), radius=4), box((2, 40), (18, 82), radius=8), box((82, 40), (98, 82), radius=8))


def gift_box(pen: Pen) -> None:
    pen.body(box((16, 44), (84, 93), radius=2))
    pen.shade(box((16, 44), (84, 52)), strength=60)
    pen.body(box((11, 30), (89, 47), radius=2.5))
    pen.trim(box((43, 30), (57, 93)))
    for side in (-1, 1):
        pen.trim(smooth([(50, 30), (50 + 10 * side, 10), (50 + 28 * side, 8), (50 + 28 * side, 24)]))
        pen.fill(pen.paint.light, smooth([(50 + 9 * side, 25), (50 + 15 * side, 15), (50 + 24 * side, 14)]))
    pen.trim(circle(50, 28, radius=6))
