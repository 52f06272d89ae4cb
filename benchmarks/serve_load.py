"""How many searches a second does the service answer, how fast, and what does it add to the engine below it?

    python benchmarks/serve_load.py --items 100000

Text queries in the mode "vectors" over items with precomputed vectors, by 1, 16 and 64 clients that each wait for a
response before the next search. For comparison: a plain loop over the same catalog without the service, the service
with one search at a time, and hybrid and filtered searches. At the end, more clients than the queue holds: how many
searches are refused, how fast, and how the service performs afterwards. Clients and service share the machine.
"""

import argparse
import statistics
import tempfile
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from serving import Client, Service, make_catalog, queries, serving

from retrieval.catalog import Catalog, SearchRequest

CLIENTS = (1, 16, 64)
BATCH = 16
COLUMNS = ["way", "clients", "searches/s", "p50 ms", "p95 ms", "p99 ms", "of which encode, search, records ms"]


def main() -> None:
    """Build, serve and load the catalog; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    given = parser.parse_args()
    rows: list[list[str]] = []
    results: dict[str, Any] = {"items": given.items}

    def add(way: str, clients: int, found: dict[str, Any]) -> None:
        results[f"{way}, {clients}"] = found
        rows.append([way, str(clients), *format_cells(found)])
        print(*rows[-1], sep=" | ", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        catalog = make_catalog(Path(folder) / "catalog", given.items)
        for way, size in (("engine alone, one by one", 1), (f"engine alone, {BATCH} at once", BATCH)):
            add(way, 1, search_without_service(catalog, size, seconds=given.seconds))
        with serving(catalog, "--batch-size", "1") as service:
            for clients in (1, 16):
                add("service, one at a time", clients, load_service(service, {}, clients, seconds=given.seconds))
        with serving(catalog) as service:
            for clients in CLIENTS:
                add("service", clients, load_service(service, {}, clients, seconds=given.seconds))
            where = {"color": "red", "price": {"$lt": 50}}
            add("service, filtered", 16, load_service(service, {"where": where}, 16, seconds=given.seconds))
            add("service, hybrid", 16, load_service(service, {"mode": "hybrid"}, 16, seconds=given.seconds))
            facets = {"where": where, "facets": ["color", "kind", "price"], "sort": ["price"]}
            add("service, facets and sort", 16, load_service(service, facets, 16, seconds=given.seconds))
        results["overload"] = overload_service(catalog, given.seconds)
        print(results["overload"])
    results["table"] = {"columns": COLUMNS, "rows": rows}
    print("wrote", write_results("serve_load", results))


def format_cells(found: dict[str, Any]) -> list[str]:
    """Return the cells of a row."""
    parts = ", ".join(f"{found['parts_ms'][part]:.1f}" for part in ("encode", "search", "records"))
    return [f"{found['per_second']:.0f}", *(f"{found[f'p{one}_ms']:.1f}" for one in (50, 95, 99)), parts]


def search_without_service(catalog: Path, size: int, *, seconds: float) -> dict[str, Any]:
    """Run the same searches in a loop in this process."""
    texts = queries(1000)
    with Catalog.open(catalog, read_only=True) as opened:
        opened.search(texts[0], mode="vectors")
        taken, parts, place, end = [], [], 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            since = time.perf_counter()
            asked = [SearchRequest(text=texts[(place + one) % len(texts)], mode="vectors") for one in range(size)]
            found = opened.search_many(asked)
            taken += [time.perf_counter() - since] * size
            parts += [{part: value / size for part, value in hits.seconds.items()} for hits in found]
            place += size
    return summarize(taken, parts, seconds=sum(taken) / size)


def load_service(service: Service, options: dict[str, Any], clients: int, *, seconds: float) -> dict[str, Any]:
    """Let clients search one after another for a while; the first half second does not count."""
    texts, taken, parts = queries(1000), [], []
    since = time.perf_counter()

    def client(number: int) -> None:
        own, place = Client(service.port), number * 13
        while (now := time.perf_counter()) < since + 0.5 + seconds:
            status, answer = own.ask(
                "POST", "/search", {"text": texts[place % len(texts)], "mode": "vectors", **options}
            )
            if status != 200:
                raise RuntimeError(f"{status}: {answer}")
            if now > since + 0.5:
                taken.append(time.perf_counter() - now)
                parts.append(answer["seconds"])
            place += 1

    run_threads([threading.Thread(target=client, args=(number,)) for number in range(clients)])
    return summarize(taken, parts, seconds=seconds)


def overload_service(catalog: Path, seconds: float) -> dict[str, Any]:
    """Run 64 clients against a queue of four, and measure the service afterwards."""
    refused: list[float] = []
    answered: list[float] = []
    broken: list[str] = []
    with serving(catalog, "--queue", "4") as service:
        since = time.perf_counter()

        def client(number: int) -> None:
            own = Client(service.port)
            while (now := time.perf_counter()) < since + seconds:
                try:
                    status, _ = own.ask("POST", "/search", {"text": queries(64)[number], "mode": "vectors"})
                except (OSError, HTTPException) as error:
                    broken.append(repr(error))
                    continue
                {200: answered, 503: refused}[status].append(time.perf_counter() - now)

        run_threads([threading.Thread(target=client, args=(number,)) for number in range(64)])
        after = load_service(service, {}, 1, seconds=2)
    return {
        "clients": 64,
        "queue": 4,
        "answered": len(answered),
        "refused": len(refused),
        "other_errors": len(broken),
        "refused_p50_ms": round(1000 * statistics.median(refused), 1) if refused else None,
        "answered_p99_ms": round(1000 * float(np.quantile(answered, 0.99)), 1),
        "afterwards_p50_ms": after["p50_ms"],
    }


def run_threads(threads: list[threading.Thread]) -> None:
    """Start all threads and wait for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def summarize(taken: list[float], parts: list[dict[str, float]], *, seconds: float) -> dict[str, Any]:
    """Throughput, quantiles of the response time, and medians of its parts."""
    names = ("encode", "search", "records")
    return {
        "searches": len(taken),
        "per_second": round(len(taken) / seconds, 1),
        **{f"p{one}_ms": round(1000 * float(np.quantile(taken, one / 100)), 2) for one in (50, 95, 99)},
        "parts_ms": {name: round(1000 * statistics.median(one[name] for one in parts), 2) for name in names},
    }


if __name__ == "__main__":
    main()
