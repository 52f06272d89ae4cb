"""A small product catalogue, invented and drawn deterministically: the demo's and the tests' own data.

Thirty kinds of things in twelve colours and eight patterns, each product with a picture, a title and a description.
The pictures hold no lettering, and the file names say nothing: what a model finds, it has seen.
"""

import csv
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Protocol, TypeVar

from PIL import Image

from retrieval.demo.sample_shop.pen import CREAM, PATTERNS, Color, Paint, Pen, Place
from retrieval.demo.sample_shop.scenes import BACKGROUNDS, compose, mix
from retrieval.demo.sample_shop.texts import COLOR_WORDS, KINDS, describe, entitle
from retrieval.demo.sample_shop.things import THINGS
from retrieval.demo.sample_shop.wear import WEAR
from retrieval.errors import PairsError

SIZES: Final = {"small": 0.60, "medium": 0.74, "large": 0.88}

_BASES: Final[dict[str, Color]] = {
    "red": (210, 54, 54),
    "orange": (242, 136, 40),
    "yellow": (248, 208, 60),
    "green": (70, 156, 84),
    "turquoise": (48, 186, 182),
    "blue": (54, 102, 206),
    "purple": (136, 80, 180),
    "pink": (242, 136, 178),
    "brown": (134, 88, 56),
    "black": (46, 44, 52),
    "gray": (126, 130, 138),
    "white": (254, 253, 250),
}
# Trimmings in a darker tone, where the usual one would be muddy; prints, where cream would not show.
_DARKS: Final[dict[str, Color]] = {"yellow": (214, 154, 24), "white": (206, 212, 220), "pink": (206, 84, 138)}
_PRINTS: Final[dict[str, Color]] = {"yellow": (208, 136, 20), "white": (176, 196, 222)}
_STANDING: Final = frozenset(
    (
        "mug",
        "boot",
        "handbag",
        "chair",
        "lamp",
        "clock",
        "bottle",
        "bicycle",
        "ball",
        "tent",
        "teapot",
        "vase",
        "backpack",
        "table",
        "candle",
        "boat",
        "sofa",
        "gift box",
    )
)
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

    @property
    def attributes(self) -> Mapping[str, object]:
        """All columns by name."""
        return asdict(self)


class HasAttributes(Protocol):
    """Anything with attributes: a Pair read from products.csv, say."""

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its `kind`, `color` and `pattern`, among others."""


Described = TypeVar("Described", bound=HasAttributes)


def draw_shop(folder: Path | str, *, count: int = 1500, seed: int = 0) -> Path:
    """Path of the products.csv written into `folder`, with its pictures in `folder/images`.

    The same `count` and `seed` give the same products and the same pixels. Kinds come in turn, so that any `count`
    is balanced; up to 330 products no two share kind, color and pattern, above that at most a few do.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    products = invent(count=count, seed=seed)
    for product in products:
        draw_product(product, seed=seed).save(folder / product.image, compress_level=6)
    return _write_table(folder / "products.csv", products)


def invent(*, count: int, seed: int = 0) -> list[Product]:
    """The shop's products, without their pictures."""
    chance = _chance(seed, "shop")
    looks = [(kind, _shuffled_looks(chance)) for kind in KINDS]
    products: list[Product] = []
    for number in range(count):
        kind, choices = looks[number % len(looks)]
        products.append(_invent_one(number, kind=kind, looks=choices, seed=seed))
    return products


def draw_product(product: Product, *, seed: int = 0) -> Image.Image:
    """The product's picture, RGB, `SIDE` x `SIDE` pixels."""
    chance = _chance(seed, product.id)
    paint = _paint(product.color)
    pen = Pen(place=_place(product, chance), paint=paint, pattern=product.pattern)
    (WEAR | THINGS)[product.kind](pen)
    return compose(pen.image, background=product.background, outline=paint.dark, chance=chance)


def split_by_combination(
    products: Sequence[Described], *, count: int = 300, seed: int = 0
) -> tuple[list[Described], list[Described]]:
    """The products to train on, and `count` whose combination of kind, color and pattern is not among them.

    No two of the held-out ones share a combination, so their captions tell them apart; where the shop has more of a
    held-out combination, the others are on neither side. Every kind, color and pattern stays in training. Both lists
    keep the given order.

    Raises:
        PairsError: so many cannot be held out.
    """
    combinations = [_combination(product) for product in products]
    often = Counter(combinations)
    left = Counter(fact for combination in combinations for fact in enumerate(combination))
    held: dict[tuple[object, object, object], int] = {}
    drawn = _chance(seed, "unseen").sample(range(len(products)), len(products))
    for number in sorted(drawn, key=lambda number: often[combinations[number]]):  # single ones first: none is lost
        combination = combinations[number]
        lost = Counter(dict.fromkeys(enumerate(combination), often[combination]))
        if len(held) < count and combination not in held and all(left[fact] > lost[fact] for fact in lost):
            held[combination] = number
            left.subtract(lost)
    if len(held) < count:
        raise PairsError(
            f"only {len(held)} of {len(products)} products can be held out, not {count}: draw more products"
        )
    places = enumerate(combinations)
    return (
        [products[number] for number, combination in places if combination not in held],
        [products[number] for number in sorted(held.values())],
    )


def _combination(product: HasAttributes) -> tuple[object, object, object]:
    return product.attributes["kind"], product.attributes["color"], product.attributes["pattern"]


def _chance(*names: int | str) -> random.Random:
    return random.Random("/".join(map(str, names)))  # noqa: S311 - reproducible drawings, no secret


def _shuffled_looks(chance: random.Random) -> list[tuple[str, str]]:
    pairs = [(color, pattern) for color in COLOR_WORDS for pattern in PATTERNS]
    chance.shuffle(pairs)
    return pairs


def _invent_one(number: int, *, kind: str, looks: Sequence[tuple[str, str]], seed: int) -> Product:
    turn = number // len(KINDS)
    color, pattern = looks[(turn - turn // _REPEATS_EVERY) % len(looks)]
    chance = _chance(seed, "product", number)
    size, stock = chance.choice(list(SIZES)), max(0, chance.randrange(-8, 60))
    background = list(BACKGROUNDS)[(number + turn) % len(BACKGROUNDS)]
    price = KINDS[kind].price * SIZES[size] / SIZES["medium"] * chance.uniform(0.85, 1.2)
    return Product(
        id=f"p{number + 1:04d}",
        image=f"images/p{number + 1:04d}.png",
        title=entitle(kind, color=color, pattern=pattern, form=number + turn),
        description=describe(kind, color=color, pattern=pattern, size=size, background=background, chance=chance),
        kind=kind,
        color=color,
        pattern=pattern,
        size=size,
        background=background,
        price=round(price * 10) / 10,
        category=KINDS[kind].category,
        stock=stock,
    )


def _paint(color: str) -> Paint:
    base = _BASES[color]
    dark = _DARKS.get(color, mix(base, (14, 8, 24), 0.34))
    return Paint(base=base, print=_PRINTS.get(color, CREAM), dark=dark, light=mix(base, (255, 255, 255), 0.42))


def _place(product: Product, chance: random.Random) -> Place:
    """Centred with a little play; in a room, what can stand stands on the floor."""
    scale = SIZES[product.size] * chance.uniform(0.96, 1.04)
    x, y = 50 + chance.uniform(-4, 4), 50 + chance.uniform(-3, 3)
    if product.kind not in _STANDING:
        return Place(scale=scale, degrees=chance.uniform(-12, 12), pivot=(50, 50), at=(x, y))
    bottom = 88 + chance.uniform(-3, 3) if product.background == "room" else y + 43 * scale
    return Place(scale=scale, degrees=chance.uniform(-3, 3), pivot=(50, 93), at=(x, bottom))


def _write_table(path: Path, products: Sequence[Product]) -> Path:
    """Written aside and renamed: a products.csv that is there is whole, and so are its pictures."""
    aside = path.with_suffix(".partial")
    with aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Product)])
        table.writeheader()
        table.writerows(asdict(product) for product in products)
    aside.replace(path)
    return path
