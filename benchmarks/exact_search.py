"""How fast is exact search beside stock FAISS and the plain matrix product, at the same ids?

python benchmarks/exact_search.py [--rows 100000] [--dimension 512] [--rounds 15] [--seconds 20]
"""

import argparse
import statistics
from functools import partial
from typing import TYPE_CHECKING

import faiss
import numpy as np
from common import interleaved, median_ratio, write_results

from index.exact import exact_search
from index.vectors import Rows, unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable

K = 10
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SLICE = 256  # queries of one plain product: all 4,096 at once would be 1.6 GB of scores


def main() -> None:
    """Measure, print and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--dimension", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=15, help="at least 3 are taken, whatever --seconds")
    arguments.add_argument("--seconds", type=float, default=20, help="about so long for each number of queries")
    given = arguments.parse_args()
    random = np.random.default_rng(0)
    rows = unit_rows(random.standard_normal((given.rows, given.dimension), np.float32))
    queries = unit_rows(random.standard_normal((max(SIZES), given.dimension), np.float32))
    stock = faiss.IndexFlatIP(given.dimension)
    stock.add(rows)
    results = []
    for size in SIZES:
        results.append(measured(stock, rows, queries[:size], rounds=given.rounds, seconds=given.seconds))
        print(results[-1], flush=True)
    shape = {"rows": given.rows, "dimension": given.dimension, "k": K}
    print(write_results("exact_search", {**shape, "by_queries": results, "table": format_table(results)}))


def format_table(results: list[dict[str, float | int | bool]]) -> dict[str, object]:
    """Return the README's table."""
    names = {
        "queries": "queries",
        "stock_ms": "stock IndexFlatIP ms",
        "product_ms": "plain product ms",
        "ours_ms": "ours ms",
        "times_stock": "times faster than stock",
        "share_of_product": "share of the plain product's speed",
    }
    return {"columns": list(names.values()), "rows": [[row[name] for name in names] for row in results]}


def measured(
    stock: faiss.IndexFlatIP, rows: Rows, queries: Rows, *, rounds: int, seconds: float
) -> dict[str, float | int | bool]:
    """Return the median milliseconds of the three ways, and what ours is against the other two, round by round."""
    ways: dict[str, Callable[[], object]] = {
        "stock": partial(stock.search, queries, K),
        "product": partial(plain_product, queries, rows),
        "ours": partial(exact_search, queries, rows, K),
    }
    first = interleaved(ways, rounds=1)
    spent = sum(sum(times) for times in first.values())
    times = interleaved(ways, rounds=max(3, min(rounds, int(seconds / spent))))
    return {
        "queries": len(queries),
        "rounds": len(times["ours"]),
        **{f"{name}_ms": round(1000 * statistics.median(taken), 2) for name, taken in times.items()},
        "times_stock": round(median_ratio(times["stock"], times["ours"]), 2),
        "share_of_product": round(median_ratio(times["product"], times["ours"]), 2),
        "same_ids": bool(np.array_equal(stock.search(queries, K)[1], exact_search(queries, rows, K).ids)),
    }


def plain_product(queries: Rows, rows: Rows) -> None:
    """Multiply and select nothing: no exact search by one product can be faster."""
    scores = np.empty((min(SLICE, len(queries)), len(rows)), np.float32)
    for start in range(0, len(queries), SLICE):
        part = queries[start : start + SLICE]
        np.matmul(part, rows.T, out=scores[: len(part)])


if __name__ == "__main__":
    main()
