"""A small product catalogue, invented and drawn deterministically: the data of the demo and of many tests.

Thirty kinds of products in twelve colors and eight patterns, each with a picture, a title and a description. The
pictures contain no lettering and the file names no words, so a model has only the pixels to go by.
"""

import csv
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from PIL import Image

from retrieval.demo.sample_shop.backgrounds import BACKGROUNDS, compose
from retrieval.demo.sample_shop.drawings import draw
from retrieval.demo.sample_shop.pen import Paint, Pen, Placement, mix, parse_color
from retrieval.demo.sample_shop.texts import COLORS, KINDS, PATTERNS, SIZES, make_description, make_title
from retrieval.errors import PairsError
from retrieval.files import write_atomically
from retrieval.pairs import Pair

_REPEATS_EVERY: Final = 10  # each tenth round repeats the combinations of the one before, in another setting


@dataclass(frozen=True, slots=True)
class Product:
    """One row of products.csv."""

    id: str
    image: str
    title: str
    description: str
    kind: str
    color: str
    pattern: str
    size: str
    background: str
    price: float
    category: str
    stock: int


def draw_shop(folder: Path | str, *, count: int = 1500, seed: int = 0) -> Path:
    """Write products.csv into `folder` and its pictures into `folder/images`; return the path of products.csv.

    The same `count` and `seed` give the same products and the same pixels. Kinds come in turn, so that any `count`
    is balanced; up to 330 products no two share kind, color and pattern, above that at most a few do. Where there is a
    products.csv, it is complete, and so are its pictures.
    """
    table = Path(folder) / "products.csv"
    (table.parent / "images").mkdir(parents=True, exist_ok=True)
    products = generate_products(count=count, seed=seed)
    for product in products:
        draw_product(product, seed=seed).save(table.parent / product.image, compress_level=6)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Product)])
            writer.writeheader()
            writer.writerows(map(asdict, products))

    write_atomically(table, write)
    return table


def generate_products(*, count: int, seed: int = 0) -> list[Product]:
    """Return the shop's products, without their pictures."""
    rng = _rng(seed, "shop")
    looks = {kind: [(color, pattern) for color in COLORS for pattern in PATTERNS] for kind in KINDS}
    for pairs in looks.values():
        rng.shuffle(pairs)
    return [_generate_product(number, looks=list(looks.items()), seed=seed) for number in range(count)]


def draw_product(product: Product, *, seed: int = 0) -> Image.Image:
    """Return the product's picture, RGB, `SIDE` x `SIDE` pixels."""
    rng = _rng(seed, product.id)
    paint = _paint(product.color)
    pen = Pen(placement=_placement(product, rng), paint=paint, pattern=product.pattern)
    draw(product.kind, pen)
    return compose(pen.image, background=product.background, outline=paint.dark, rng=rng)


def split_by_combination(products: Sequence[Pair], *, count: int = 300, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Return the products to train on, and `count` whose combination of kind, color and pattern is not among them.

    No two of the held-out products share a combination, so their captions tell them apart; where the shop has more
    products of a held-out combination, the others are in neither list. Every kind, color and pattern stays in training.
    Both lists keep the given order.

    Raises:
        PairsError: The products are too few to hold out so many.
    """
    combinations = [tuple(product.attributes[name] for name in ("kind", "color", "pattern")) for product in products]
    frequency = Counter(combinations)
    remaining = Counter(fact for combination in combinations for fact in enumerate(combination))
    held_out: dict[tuple[object, ...], int] = {}
    order = _rng(seed, "unseen").sample(range(len(products)), len(products))
    for number in sorted(order, key=lambda number: frequency[combinations[number]]):  # unique ones lose no product
        combination = combinations[number]
        removed = Counter(dict.fromkeys(enumerate(combination), frequency[combination]))
        if (
            len(held_out) < count
            and combination not in held_out
            and all(remaining[fact] > removed[fact] for fact in removed)
        ):
            held_out[combination] = number
            remaining.subtract(removed)
    if len(held_out) < count:
        raise PairsError(
            f"Only {len(held_out)} of {len(products)} products can be held out, not {count}. Draw more products."
        )
    return (
        [product for product, combination in zip(products, combinations, strict=True) if combination not in held_out],
        [products[number] for number in sorted(held_out.values())],
    )


def _rng(*names: int | str) -> random.Random:
    return random.Random("/".join(map(str, names)))  # noqa: S311 - reproducible drawings, no secret


def _generate_product(number: int, *, looks: Sequence[tuple[str, list[tuple[str, str]]]], seed: int) -> Product:
    turn = number // len(KINDS)
    kind, pairs = looks[number % len(KINDS)]
    color, pattern = pairs[(turn - turn // _REPEATS_EVERY) % len(pairs)]
    rng = _rng(seed, "product", number)
    size, stock = rng.choice(list(SIZES)), max(0, rng.randrange(-8, 60))
    background = list(BACKGROUNDS)[(number + turn) % len(BACKGROUNDS)]
    price = KINDS[kind]["price"] * SIZES[size]["scale"] / SIZES["medium"]["scale"] * rng.uniform(0.85, 1.2)
    return Product(
        id=f"p{number + 1:04d}",
        image=f"images/p{number + 1:04d}.png",
        title=make_title(kind, color=color, pattern=pattern, form=number + turn),
        description=make_description(kind, color=color, pattern=pattern, size=size, background=background, rng=rng),
        kind=kind,
        color=color,
        pattern=pattern,
        size=size,
        background=background,
        price=round(price * 10) / 10,
        category=KINDS[kind]["category"],
        stock=stock,
    )


def _paint(color: str) -> Paint:
    tones = {name: parse_color(tone) for name, tone in COLORS[color].items() if name != "words"}
    base, cream = tones["base"], (252, 247, 235)
    defaults = {"print": cream, "dark": mix(base, (14, 8, 24), 0.34), "light": mix(base, (255, 255, 255), 0.42)}
    return Paint(**(defaults | tones))


def _placement(product: Product, rng: random.Random) -> Placement:
    """Return a placement near the middle; in a room, what can stand stands on the floor."""
    scale = SIZES[product.size]["scale"] * rng.uniform(0.96, 1.04)
    x, y = 50 + rng.uniform(-4, 4), 50 + rng.uniform(-3, 3)
    if "stands" not in KINDS[product.kind]:
        return Placement(scale=scale, degrees=rng.uniform(-12, 12), pivot=(50, 50), at=(x, y))
    bottom = 88 + rng.uniform(-3, 3) if product.background == "room" else y + 43 * scale
    return Placement(scale=scale, degrees=rng.uniform(-3, 3), pivot=(50, 93), at=(x, bottom))
