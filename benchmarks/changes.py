"""What changes cost the searches beside them: an index that is being built, and one item changed among many.

    python benchmarks/changes.py --items 200000

- One thread searches without a pause while the writer lets the catalog have another kind of index: how long the
  searches take before, during and after it is built. Until it is there they are exact.
- Between two searches one item is changed: the change, and the first search after it, beside a search with no change
  before it, each on the same catalog, one after the other.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from catalog import CHUNK, SEED
from common import seconds_of, write_results

from retrieval.catalog import Catalog
from retrieval.pairs import Pairs

DIMENSION, K, CHANGES = 128, 10, 200


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    options = parser.parse_args()
    generator = np.random.default_rng(SEED)
    queries = generator.normal(size=(1000, DIMENSION)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name, Catalog.open(Path(name) / "c", create=True) as catalog:
        use(catalog, "exact")
        for start in range(0, options.items, CHUNK):
            rows = generator.normal(size=(CHUNK, DIMENSION)).astype(np.float32)
            catalog.upsert({"id": str(start + n), "image_vectors": rows[n : n + 1]} for n in range(CHUNK))
        results = {
            "items": len(catalog),
            "dimension": DIMENSION,
            "building": building(catalog, queries),
            "changing": changing(catalog, queries, generator),
        }
    print(json.dumps(results, indent=2))
    print(write_results("changes", {**results, "table": format_table(results)}))


def use(catalog: Catalog, kind: Any) -> None:
    """Let the catalog have a kind of index from now on, by a build that has no pairs."""
    catalog.build(Pairs(source=Path(), root=Path(), layout="folder", pairs=()), index=kind)


def building(catalog: Catalog, queries: np.ndarray) -> dict[str, Any]:
    """Milliseconds of the searches before, while and after a graph is built."""
    before = searches(catalog, queries, enough=lambda done: done >= CHANGES)
    builder = threading.Thread(target=use, args=(catalog, "hnsw"))
    began = time.perf_counter()
    builder.start()
    during = searches(catalog, queries, enough=lambda _: not builder.is_alive())
    seconds = time.perf_counter() - began
    builder.join()
    after = searches(catalog, queries, enough=lambda done: done >= CHANGES)
    return {"seconds": round(seconds, 1), "before": told(before), "during": told(during), "after": told(after)}


def changing(catalog: Catalog, queries: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    """Milliseconds of a change of one item, of the first search after it, and of a search after no change."""
    times: dict[str, list[float]] = {"search": [], "change": [], "search_after_change": []}
    for number in range(CHANGES):
        query = queries[number]
        item = {"id": str(number), "image_vectors": generator.normal(size=(1, DIMENSION)).astype(np.float32)}
        times["search"].append(seconds_of(partial(catalog.search, vector=query, k=K)))
        times["change"].append(seconds_of(partial(catalog.upsert, [item])))
        times["search_after_change"].append(seconds_of(partial(catalog.search, vector=query, k=K)))
    return {name: told(each) for name, each in times.items()}


def searches(catalog: Catalog, queries: np.ndarray, *, enough: Callable[[int], bool]) -> list[float]:
    """Search for one query after the other until it is enough; seconds of each."""
    taken: list[float] = []
    while not enough(len(taken)):
        query = queries[len(taken) % len(queries)]
        taken.append(seconds_of(partial(catalog.search, vector=query, k=K)))
    return taken


def told(taken: list[float]) -> dict[str, float]:
    """The median and the worst, in milliseconds."""
    return {
        "count": len(taken),
        "median": round(1000 * float(np.median(taken)), 2),
        "worst": round(1000 * max(taken), 1),
    }


def format_table(results: dict[str, Any]) -> dict[str, object]:
    """Return the README's table."""
    build, change = results["building"], results["changing"]
    rows = [
        ["a search, exact", *numbers(build["before"])],
        [f"a search while the graph is built ({build['seconds']:.0f} s)", *numbers(build["during"])],
        ["a search of the graph", *numbers(build["after"])],
        ["a change of one item", *numbers(change["change"])],
        ["the first search after a change", *numbers(change["search_after_change"])],
        ["a search after no change", *numbers(change["search"])],
    ]
    return {"columns": [f"{results['items']:,} items of {results['dimension']}", "median ms", "worst ms"], "rows": rows}


def numbers(one: dict[str, float]) -> list[float]:
    """The cells of a row."""
    return [one["median"], one["worst"]]


if __name__ == "__main__":
    main()
