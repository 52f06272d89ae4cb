"""Filtered search over 100,000 items of 512 dimensions: exact at any selectivity, and what it costs beside no filter.

Each query goes through `Catalog.search`: reading the filter, evaluating it on columns in memory, exact search over
what it lets through, and fetching the records of the hits. The oracle knows nothing of catalogs or filters: it takes
the attribute's numbers from a plain array and scores every allowed row.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import interleaved, median_ratio, write_results

from index.vectors import unit_rows
from retrieval.catalog import Catalog

DIMENSION, K, SEED = 512, 10, 0
SELECTIVITIES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CHUNK = 10_000
CATEGORIES = 50


class Shop:
    """Items as plain arrays, from which the catalog is made and the right answers are known."""

    def __init__(self, count: int) -> None:
        """Draw so many items."""
        generator = np.random.default_rng(SEED)
        self.rows = unit_rows(generator.normal(size=(count, DIMENSION)).astype(np.float32))
        self.draw = generator.permutation(count) / count
        self.category = generator.integers(CATEGORIES, size=count)
        self.queries = unit_rows(generator.normal(size=(16, DIMENSION)).astype(np.float32))

    def items(self) -> Iterator[list[dict[str, Any]]]:
        """Return what `upsert` takes, in chunks."""
        for start in range(0, len(self.rows), CHUNK):
            yield [
                {
                    "id": str(number),
                    "image_vectors": self.rows[number : number + 1],
                    "attributes": {
                        "draw": float(self.draw[number]),
                        "category": f"category {self.category[number]}",
                        "tags": [f"tag {number % 7}", f"tag {number % 11}"],
                    },
                }
                for number in range(start, min(start + CHUNK, len(self.rows)))
            ]

    def truth(self, query: np.ndarray, allowed: np.ndarray) -> list[str]:
        """Return the ids of the K best allowed rows."""
        rows = np.flatnonzero(allowed)
        scores = self.rows[rows].astype(np.float64) @ query.astype(np.float64)
        return [str(rows[place]) for place in np.lexsort((rows, -scores))[:K]]


def filters(shop: Shop) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """Return each filter with the rows that it lets through, by name."""
    made: dict[str, tuple[dict[str, Any], np.ndarray]] = {
        f"{share:.2%}": ({"draw": {"$lt": share}}, shop.draw < share) for share in SELECTIVITIES
    }
    chosen = [f"category {number}" for number in range(10)]
    made["category in 10 of 50, and draw"] = (
        {"category": {"$in": chosen}, "draw": {"$gte": 0.5}},
        (shop.category < 10) & (shop.draw >= 0.5),
    )
    numbers = np.arange(len(shop.rows))
    made["a tag of a list, or not a category"] = (
        {"$or": [{"tags": "tag 3"}, {"category": {"$ne": "category 7"}}]},
        (numbers % 7 == 3) | (numbers % 11 == 3) | (shop.category != 7),
    )
    made["nothing"] = ({"draw": {"$gt": 2}}, np.zeros(len(shop.rows), np.bool_))
    return made


def measure(catalog: Catalog, shop: Shop, rounds: int) -> dict[str, Any]:
    """Return recall and time of each filter, and of a search without one."""
    every = filters(shop)

    def searching(where: dict[str, Any] | None) -> Callable[[], object]:
        return lambda: [catalog.search(vector=query, k=K, where=where) for query in shop.queries[:4]]

    seconds = interleaved(
        {"no filter": searching(None), **{name: searching(where) for name, (where, _) in every.items()}}, rounds
    )
    plain = seconds.pop("no filter")
    rows = {}
    for name, (where, allowed) in every.items():
        rows[name] = {
            "matches": int(np.count_nonzero(allowed)),
            "recall": _recall(catalog, shop, where, allowed=allowed),
            "milliseconds": round(median(seconds[name]) / 4 * 1000, 2),
            "times_unfiltered": round(1 / median_ratio(plain, seconds[name]), 2),
        }
    table = [
        [name, row["matches"], row["recall"], row["milliseconds"], row["times_unfiltered"]]
        for name, row in rows.items()
    ]
    return {
        "table": {"columns": ["filter", "matches", "recall", "ms", "times unfiltered"], "rows": table},
        "items": len(shop.rows),
        "dimension": DIMENSION,
        "k": K,
        "unfiltered_milliseconds": round(median(plain) / 4 * 1000, 2),
        "worst_times_unfiltered": max(row["times_unfiltered"] for row in rows.values()),
        "filters": rows,
    }


def _recall(catalog: Catalog, shop: Shop, where: dict[str, Any], *, allowed: np.ndarray) -> float:
    """Share of the true hits that are found, over all queries; a filter that lets nothing through has none to miss."""
    found = right = 0
    for query in shop.queries:
        truth = shop.truth(query, allowed)
        hits = [hit.id for hit in catalog.search(vector=query, k=K, where=where)]
        found += len(set(hits) & set(truth))
        right += max(len(truth), len(hits))
    return found / right if right else 1.0


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    shop = Shop(options.items)
    with tempfile.TemporaryDirectory() as folder, Catalog.open(Path(folder) / "c", create=True) as catalog:
        for items in shop.items():
            catalog.upsert(items)
        results = measure(catalog, shop, options.rounds)
    for name, row in results["filters"].items():
        print(f"{name:40} {row}")
    print({name: value for name, value in results.items() if name != "filters"})
    print(write_results("filtered_search", results))


if __name__ == "__main__":
    main()
