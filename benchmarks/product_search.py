"""Which way of searching finds products best: by meaning, words, or both; by pictures, or pictures and texts as one?

    python benchmarks/product_search.py --data ../shared/data

Labelled queries over two shops, products as items with all their pictures and texts: `luma` (where it is there) and the
sample shop. Attribute queries are drawn from the products' own attributes, descriptive ones say what a thing is or is
for in words that titles mostly do not use, and SKUs are typed whole. What is relevant follows from the attributes: 3 is
all that was asked for, less is part of it. Every way answers the same queries; intervals are of the paired difference,
resampled by query. The captions' weight is learned on every other query and graded on the rest, both ways round.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from common import write_results

from retrieval.catalog import Catalog
from retrieval.demo.sample_shop import draw_shop
from retrieval.metrics.intervals import paired_difference
from retrieval.pairs import Pair, read_pairs

SEED = 0
K = 10
WEIGHTS = tuple(step / 10 for step in range(11))
COLUMNS = ["queries", "number", "pictures", "items, best", "items, mean", "items, learned", "words", "hybrid"]
WAYS: Mapping[str, Mapping[str, Any]] = {
    "pictures": {"mode": "vectors"},
    "items, best": {"mode": "vectors", "target": "items", "caption_weight": 0.5},
    "items, mean": {"mode": "vectors", "target": "items", "caption_weight": 0.5, "fusion": "mean"},
    "words": {"mode": "words"},
    "hybrid": {"mode": "hybrid"},
}
DESCRIBED = {  # over luma: what is asked, a part of the category, of the description's or the name's words, a colour
    "a warm jumper with a hood": ("Hoodies", "", ""),
    "hooded sweater for a man": ("Men/Tops/Hoodies", "", ""),
    "sleeveless top for women": ("Women/Tops/Bras & Tanks", "", ""),
    "undershirt to work out in": ("Tanks", "", ""),
    "leggings": ("Women/Bottoms/Pants", "", ""),
    "long trousers for men": ("Men/Bottoms/Pants", "", ""),
    "sweatpants": ("Men/Bottoms/Pants", "", ""),
    "short trousers for running": ("Shorts", "", ""),
    "raincoat": ("Jackets", "", ""),
    "windbreaker for a lady": ("Women/Tops/Jackets", "", ""),
    "anorak for men": ("Men/Tops/Jackets", "", ""),
    "rucksack": ("Bags", "", ""),
    "something to carry my gym clothes in": ("Bags", "", ""),
    "wristwatch": ("Watches", "", ""),
    "timepiece": ("Watches", "", ""),
    "something to tell the time with": ("Watches", "", ""),
    "equipment to train at home": ("Fitness Equipment", "", ""),
    "crew neck shirt for men": ("Men/Tops/Tees", "", ""),
    "short sleeved shirt for women": ("Women/Tops/Tees", "", ""),
    "scarlet jacket": ("Jackets", "", "Red"),
    "navy shorts": ("Shorts", "", "Blue"),
    "violet vest": ("Tanks", "", "Purple"),
    "golden shirt": ("Tees", "", "Yellow"),
    "dark pullover": ("Hoodies", "", "Black"),
    "snow white coat": ("Jackets", "", "White"),
    "silver trousers": ("Pants", "", "Gray"),
}

SAID = {  # over the sample shop: what people call a thing, or what it is for, in words that the shop does not use
    "mug": "something to drink hot chocolate from",
    "T-shirt": "short sleeved top",
    "dress": "gown for a girl",
    "hat": "headwear against the heat",
    "boot": "wellingtons",
    "handbag": "clutch for a woman",
    "chair": "seat for one person",
    "lamp": "light for my desk",
    "clock": "timepiece that wakes me up",
    "bottle": "flask to drink from",
    "umbrella": "parasol",
    "guitar": "string instrument",
    "bicycle": "two-wheeler with pedals",
    "ball": "round toy to kick",
    "kite": "toy that flies on a string",
    "tent": "shelter for camping out",
    "teapot": "kettle with a spout",
    "vase": "container for flowers",
    "backpack": "bag to wear on both shoulders",
    "sock": "stocking",
    "glove": "mitten",
    "scarf": "shawl to wear around the neck",
    "watch": "timepiece to wear",
    "cushion": "something soft to lean on",
    "table": "desk with four legs",
    "book": "novel to read",
    "candle": "something to light on a birthday cake",
    "boat": "ship with sails",
    "sofa": "settee",
    "gift box": "parcel with a bow",
}

Grade: TypeAlias = Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True)
class Asked:
    """A query, and how relevant items are by their attributes."""

    kind: str
    text: str
    grade: Grade


def main() -> None:
    """Ask, grade, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds luma")
    parser.add_argument("--products", type=int, default=1500, help="of the sample shop")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    rows: list[list[str]] = []
    kinds: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shops = []
        if given.data is not None and (given.data / "luma").is_dir():
            pairs = list(read_pairs(given.data / "luma" / "products.csv"))
            shops.append(("luma", products(pairs, lambda pair: pair.id.rpartition("_")[0] or pair.id), luma_queries))
        drawn = list(read_pairs(draw_shop(folder / "shop", count=given.products)))
        shops.append(("sample shop", products(drawn, lambda pair: pair.id), shop_queries))
        for shop, items, make in shops:
            asked = make(items)
            with Catalog.open(folder / f"{shop}.catalog", create=True) as catalog:
                catalog.upsert(items)
                found = graded(catalog, items, asked)
            kinds += [one.kind for one in asked]
            for kind in dict.fromkeys(one.kind for one in asked):
                places = [place for place, one in enumerate(asked) if one.kind == kind]
                rows.append([f"{shop}: {kind}", str(len(places)), *cells(found, places)])
            results[shop] = {way: float(np.mean(values)) for way, values in found.items()}
            results.setdefault("values", {})[shop] = {way: values.tolist() for way, values in found.items()}
    values = {way: np.concatenate([np.array(one[way]) for one in results["values"].values()]) for way in COLUMNS[2:]}
    weights = balance(kinds)
    rows.append(["all, each kind a third", str(len(kinds)), *cells(values, range(len(kinds)), weights=weights)])
    results["hybrid against its parts"] = {
        part: against(values, part, weights=weights) for part in ("pictures", "items, best", "words")
    }
    del results["values"]
    for row in rows:
        print(*row, sep=" | ")
    print(results["hybrid against its parts"])
    print("wrote", write_results("product_search", {"table": {"columns": COLUMNS, "rows": rows}, **results}))


def products(pairs: Iterable[Pair], key: Callable[[Pair], str]) -> list[dict[str, Any]]:
    """Items with all pictures and texts of a product."""
    items: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        item = items.setdefault(
            key(pair), {"id": key(pair), "images": [], "captions": [], "attributes": dict(pair.attributes)}
        )
        item["images"].append(pair.image)
        item["captions"] += [caption for caption in pair.captions if caption not in item["captions"]]
    return list(items.values())


# --- queries


def luma_queries(items: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """Colour and category, descriptions, SKUs."""
    chosen = random.Random(SEED)
    nouns = {
        "Jackets": "jacket",
        "Hoodies": "hoodie",
        "Tees": "tee",
        "Pants": "pants",
        "Shorts": "shorts",
        "Tanks": "tank",
    }
    colors = ("Black", "Blue", "Green", "Red", "Gray", "Purple", "Orange", "Yellow", "White")
    asked = [
        Asked("attributes", f"{color.lower()} {noun} for {people.lower()}", luma_grade(category, people, color))
        for category, noun in nouns.items()
        for color in colors
        for people in ("Men", "Women")
    ]
    asked += [
        Asked("descriptions", text, luma_grade(category, word, color))
        for text, (category, word, color) in DESCRIBED.items()
    ]
    skus = sorted({sku for item in items for sku in listed(item["attributes"].get("skus"))})
    asked += [Asked("SKUs", sku, has_sku(sku)) for sku in chosen.sample(skus, 60)]
    return [one for one in asked if any(one.grade(item) == 3 for item in items)]


def luma_grade(category: str, word: str, color: str) -> Grade:
    """3 for the category (and the people whom it is for) in the colour, 1 for the category in another one."""

    def grade(item: Mapping[str, Any]) -> int:
        attributes = item["attributes"]
        categories = " ".join(listed(attributes.get("categories"))).replace("\n", "/")
        if category not in categories or (word and f"/{word}/" not in categories):
            return 0
        return 3 if not color or attributes.get("color") == color else 1

    return grade


def listed(value: Any) -> list[str]:
    """The texts of a list, or of none."""
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def has_sku(sku: str) -> Grade:
    """3 for the product that has the SKU."""
    return lambda item: 3 if sku in listed(item["attributes"].get("skus")) else 0


def shop_queries(items: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """Attributes of products that there are, descriptions, ids."""
    chosen = random.Random(SEED)
    drawn = chosen.sample(list(items), 120)
    asked = []
    for item in drawn[:60]:
        kind, color, pattern = (item["attributes"][name] for name in ("kind", "color", "pattern"))
        asked.append(Asked("attributes", f"{pattern} {kind} {color}", shop_grade(kind, color, pattern)))
    asked += [Asked("descriptions", text, shop_grade(kind, None, None)) for kind, text in SAID.items()]
    return asked + [Asked("SKUs", item["id"], has_id(item["id"])) for item in drawn[60:]]


def shop_grade(kind: str, color: str | None, pattern: str | None) -> Grade:
    """3 for all that was asked for, 2 for the thing in the colour, 1 for the thing."""

    def grade(item: Mapping[str, Any]) -> int:
        own = item["attributes"]
        if own["kind"] != kind:
            return 0
        return 1 if color not in (None, own["color"]) else 2 if pattern not in (None, own["pattern"]) else 3

    return grade


def has_id(name: str) -> Grade:
    """3 for this item."""
    return lambda item: 3 if item["id"] == name else 0


# --- grades


def graded(catalog: Catalog, items: Sequence[Mapping[str, Any]], asked: Sequence[Asked]) -> dict[str, np.ndarray]:
    """The nDCG@10 of every query, by way."""
    grades = [{item["id"]: one.grade(item) for item in items} for one in asked]

    def values(**options: Any) -> np.ndarray:
        pages = [[hit.id for hit in catalog.search(one.text, k=K, **options)] for one in asked]
        return np.array([ndcg(page, own) for page, own in zip(pages, grades, strict=True)])

    found = {way: values(**options) for way, options in WAYS.items()}
    weighed = np.stack([values(mode="vectors", target="items", caption_weight=weight) for weight in WEIGHTS])
    learned = np.empty(len(asked))
    for half in (0, 1):  # the weight that is best on one half is used on the other
        learned[half::2] = weighed[np.argmax(weighed[:, 1 - half :: 2].mean(axis=1)), half::2]
    return {**found, "items, learned": learned}


def ndcg(page: Sequence[str], grades: Mapping[str, int]) -> float:
    """Normalized discounted cumulative gain at 10, gains 2^grade - 1 (Burges et al. 2005)."""
    best = sorted(grades.values(), reverse=True)[:K]
    return gain([grades[name] for name in page]) / gain(best)


def gain(grades: Sequence[int]) -> float:
    """Discounted by the logarithm of the place."""
    return float(sum((2**grade - 1) / np.log2(place + 2) for place, grade in enumerate(grades)))


def balance(kinds: Sequence[str]) -> np.ndarray:
    """Weights by which each kind of query counts the same, of mean 1."""
    counts = {kind: kinds.count(kind) for kind in kinds}
    return np.array([len(kinds) / (len(counts) * counts[kind]) for kind in kinds])


def cells(found: Mapping[str, np.ndarray], places: Sequence[int], *, weights: np.ndarray | None = None) -> list[str]:
    """Means in the order of the columns."""
    return [f"{np.average(found[way][list(places)], weights=weights):.3f}" for way in COLUMNS[2:]]


def against(found: Mapping[str, np.ndarray], part: str, *, weights: np.ndarray) -> dict[str, Any]:
    """The hybrid's mean beside a part's."""
    before, after = found[part] * weights, found["hybrid"] * weights
    difference = paired_difference(before, after, items=np.arange(len(before)))
    mean = float(np.mean(before))
    return {
        "part": mean,
        "hybrid": float(np.mean(after)),
        "gain_percent": 100 * difference.value / mean,
        "interval_percent": [100 * difference.low / mean, 100 * difference.high / mean],
    }


if __name__ == "__main__":
    main()
