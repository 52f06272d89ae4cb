"""The sample shop: deterministic, varied, balanced, and split so that what is held out was never trained on."""

import csv
import itertools
import re
from collections import Counter
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.demo.sample_shop import draw_product, draw_shop, generate_products, split_by_combination
from retrieval.demo.sample_shop.backgrounds import BACKGROUNDS
from retrieval.demo.sample_shop.drawings import DRAWINGS
from retrieval.demo.sample_shop.pen import SIDE
from retrieval.demo.sample_shop.shapes import box, circle, heart, mirror, pattern_shapes, smooth, star
from retrieval.demo.sample_shop.texts import COLORS, KINDS, PATTERNS, SHOP
from retrieval.errors import PairsError


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop of two hundred and forty products."""
    return draw_shop(tmp_path_factory.mktemp("shop"), count=240)


@pytest.fixture(scope="module")
def rows(shop):
    with shop.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def split_products(products, **options):
    """The two lists of products that `split_by_combination` makes of their rows."""
    rows = [SimpleNamespace(product=product, attributes=asdict(product)) for product in products]
    return [[row.product for row in part] for part in split_by_combination(rows, **options)]


def combination(product):
    return product.kind, product.color, product.pattern


def test_products_csv_lists_every_product_with_its_picture(shop, rows):
    assert list(rows[0]) == [
        "id", "image", "title", "description", "kind", "color", "pattern", "size", "background", "price", "category",
        "stock",
    ]  # fmt: skip
    assert len(rows) == 240
    for row in rows:
        with Image.open(shop.parent / row["image"]) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (SIDE, SIDE))


def test_products_csv_holds_the_generated_products(rows):
    for row, product in zip(rows, generate_products(count=240), strict=True):
        assert row == {name: str(value) for name, value in asdict(product).items()}


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(shop, tmp_path):
    again = draw_shop(tmp_path / "again", count=6)
    other = draw_shop(tmp_path / "other", count=6, seed=1)
    for number in range(1, 7):
        name = f"images/p{number:04d}.png"
        assert (again.parent / name).read_bytes() == (shop.parent / name).read_bytes()
        assert (other.parent / name).read_bytes() != (shop.parent / name).read_bytes()


def test_a_larger_shop_starts_with_the_products_of_a_smaller_one():
    assert generate_products(count=500)[:100] == generate_products(count=100)


def test_file_names_do_not_describe_the_pictures(rows):
    assert [row["image"] for row in rows] == [f"images/p{number:04d}.png" for number in range(1, 241)]


def test_no_two_pictures_are_near_duplicates(shop, rows):
    """The mean difference a pixel and channel, at a quarter of the size, is at least three grey levels for any two."""
    small = np.stack([_thumbnail(shop.parent / row["image"]) for row in rows])
    squared = (small**2).sum(1)
    distance = squared[:, None] + squared[None, :] - 2 * small @ small.T
    distance[np.diag_indices(len(rows))] = np.inf
    assert np.sqrt(distance.min() / small.shape[1]) > 3


def _thumbnail(path):
    with Image.open(path) as picture:
        return np.asarray(picture.resize((32, 32)), np.float64).ravel()


def test_products_of_one_combination_differ_in_background_and_title():
    products = generate_products(count=1500)
    groups = {}
    for product in products:
        groups.setdefault(combination(product), []).append(product)
    shared = [group for group in groups.values() if len(group) > 1]
    assert max(map(len, groups.values())) == 2
    assert sum(map(len, shared)) < 0.2 * len(products)
    for first, second in shared:
        assert first.background != second.background
        assert first.title != second.title


def test_the_default_shop_is_balanced_and_repeats_no_text():
    products = generate_products(count=1500)
    assert len({product.title for product in products}) == 1500
    assert len({product.description for product in products}) == 1500
    assert min(Counter(product.kind for product in products).values()) == 50
    assert min(Counter(product.color for product in products).values()) > 90
    assert min(Counter(product.pattern for product in products).values()) > 150
    assert all(product.price > 0 and product.stock >= 0 for product in products)


def names(text, word):
    """Whether the word stands in the text by itself: "covered" does not say red."""
    return re.search(rf"\b{word}\b", text) is not None


def test_titles_name_kind_color_and_pattern():
    for product in generate_products(count=600):
        adjective, noun = (PATTERNS[product.pattern][key] for key in ("adjective", "noun"))
        title = product.title.lower()
        assert product.kind.lower() in title
        assert names(title, product.color)
        assert adjective in title or noun in title


def test_descriptions_paraphrase_kind_color_and_pattern():
    for product in generate_products(count=600):
        adjective, phrases = (PATTERNS[product.pattern][key] for key in ("adjective", "phrases"))
        text = product.description.lower()
        assert any(name.lower() in text for name in (product.kind, *KINDS[product.kind]["names"]))
        assert any(names(text, word) for word in COLORS[product.color]["words"])
        assert any(phrase in text for phrase in (adjective, *phrases))


def test_texts_backgrounds_and_drawings_cover_the_same_kinds_and_patterns():
    assert len(KINDS) == 30
    assert set(DRAWINGS["strokes"]) == set(KINDS)
    assert len(COLORS) == 12
    assert list(PATTERNS) == list(pattern_shapes())
    assert list(BACKGROUNDS) == list(SHOP["backgrounds"])


def test_every_kind_is_drawn_in_its_color():
    """Red things are redder than the same scene with the thing in blue; an empty drawing would not differ."""
    base = {product.kind: product for product in generate_products(count=30)}
    for kind, pattern in itertools.product(base, ("plain", "zigzag")):
        red, blue = (np.asarray(draw_product(_recolored(base[kind], color, pattern)), int) for color in ("red", "blue"))
        changed = (red[..., 0] - red[..., 2]) > (blue[..., 0] - blue[..., 2]) + 60
        assert changed.mean() > 0.02, kind


def _recolored(product, color, pattern):
    fields = {**asdict(product), "color": color, "pattern": pattern, "size": "large"}
    return type(product)(**fields)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_product_stands_out_from_its_background(background):
    """A white and a yellow thing differ from what is behind them: the centre is not the corner."""
    for color in ("white", "yellow"):
        product = _recolored(generate_products(count=14)[13], color, "plain")
        product = type(product)(**{**asdict(product), "background": background})
        picture = np.asarray(draw_product(product), int)
        assert np.abs(picture[56:72, 56:72].mean((0, 1)) - picture[:10, :10].mean((0, 1))).max() > 10


def test_held_out_combinations_are_unique_and_not_in_training():
    training, held_out = split_products(generate_products(count=1500))
    assert (len(training), len(held_out)) == (1200, 300)
    assert len(set(map(combination, held_out))) == 300
    assert not set(map(combination, held_out)) & set(map(combination, training))
    for fact in ("kind", "color", "pattern"):
        assert {getattr(product, fact) for product in held_out} <= {getattr(product, fact) for product in training}


def test_a_small_split_keeps_every_kind_in_training():
    products = generate_products(count=40)
    training, held_out = split_products(products, count=8)
    assert {product.kind for product in training} == set(KINDS)
    assert sorted([*training, *held_out], key=lambda product: product.id) == products


def test_the_split_depends_on_its_seed():
    products = generate_products(count=300)
    assert split_products(products, count=50) == split_products(products, count=50)
    assert split_products(products, count=50) != split_products(products, count=50, seed=1)


def test_holding_out_too_many_products_is_an_error():
    with pytest.raises(PairsError, match=r"Only \d+ of 30 products can be held out, not 30"):
        split_products(generate_products(count=30), count=30)


def area(shape):
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise([*shape, shape[0]]))) / 2


def test_shapes_have_the_expected_areas():
    assert area(circle(50, 50, radius=20)) == pytest.approx(np.pi * 400, rel=0.01)
    assert area(box((10, 20), (50, 80))) == 2400
    assert area(box((10, 20), (50, 80), radius=10)) == pytest.approx(2400 - (4 - np.pi) * 100, rel=0.01)
    assert area(star((50, 50), 10, waist=1)) == pytest.approx(5 * np.sin(np.pi / 5) * 100, rel=1e-9)
    # The heart curve encloses 180 pi at scale 16.
    assert area(heart((0, 0), 16)) == pytest.approx(180 * np.pi, rel=0.03)


def test_a_smooth_curve_passes_through_its_points_and_a_mirrored_outline_is_symmetric():
    points = [(10, 10), (80, 20), (60, 90)]
    assert set(points) <= set(smooth(points))
    shape = mirror([(40, 10), (20, 50), (50, 90)])
    assert {(100 - x, y) for x, y in shape} == set(shape)
