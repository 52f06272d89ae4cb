"""How soon a catalog answers, and how soon a build that changes nothing is done.

- A catalog of 100,000 items is opened without an encoder in a fresh process and answers its first `search(vector=...)`.
- A build of 10,000 unchanged pictures with captions: reading the pairs, comparing, writing nothing.
- What filling costs: vectors that are there already, and single changes one by one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import write_results
from PIL import Image

from index.vectors import unit_rows
from retrieval.catalog import Catalog
from retrieval.pairs import read_pairs

DIMENSION, SEED, CHUNK = 512, 0, 10_000

# The clock of the child starts before its imports; what Python itself takes to start is in `process_seconds`.
FIRST_SEARCH = """
import json, sys, time
began = time.perf_counter()
from retrieval.catalog import Catalog
imported = time.perf_counter()
with Catalog.open(sys.argv[1], read_only=True) as catalog:
    opened = time.perf_counter()
    hits = catalog.search(vector=[1.0] * catalog.dimension, k=10, **json.loads(sys.argv[2]))
    first = time.perf_counter()
    catalog.search(vector=[1.0] * catalog.dimension, k=10, **json.loads(sys.argv[2]))
    second = time.perf_counter()
assert len(hits) == 10
read = {line.split(":")[0]: int(line.split(":")[1]) for line in open("/proc/self/io")}
print(json.dumps({
    "import_seconds": imported - began, "open_seconds": opened - imported, "first_search_seconds": first - opened,
    "open_and_first_search_seconds": first - imported, "second_search_seconds": second - first,
    "read_megabytes": read["rchar"] / 1e6, "modules": len(sys.modules),
    "heavy": sorted({"torch", "faiss", "open_clip"} & set(sys.modules)),
}))
"""


class Colors:
    """An encoder that costs nothing: a picture's first pixels, a text's first bytes."""

    name, dimension, device, image_size, batch_size = "benchmark/colors", DIMENSION, "cpu", 8, 64
    image_fingerprint = text_fingerprint = "0123456789abcdef"

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return the pixels."""
        return np.asarray(image.resize((8, 8)), np.float32).ravel()

    def encode_prepared(self, prepared: Any) -> np.ndarray:
        """Return rows of pixels."""
        return unit_rows(np.array([np.resize(pixels + 1, DIMENSION) for pixels in prepared]).reshape(-1, DIMENSION))

    def encode_images(self, images: Any) -> np.ndarray:
        """Return rows of pixels."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_texts(self, texts: Any) -> np.ndarray:
        """Return rows of letters."""
        letters = [np.resize(np.frombuffer(text.encode() + b"\1", np.uint8), DIMENSION) for text in texts]
        return unit_rows(np.array(letters, np.float32).reshape(-1, DIMENSION))


def fill(folder: Path, count: int) -> dict[str, float]:
    """Write a catalog of items with vectors; return what that took."""
    generator = np.random.default_rng(SEED)
    began = time.perf_counter()
    with Catalog.open(folder, create=True) as catalog:
        for start in range(0, count, CHUNK):
            rows = generator.normal(size=(CHUNK, 2, DIMENSION)).astype(np.float32)
            catalog.upsert(
                {
                    "id": f"product {start + number}",
                    "image_vectors": rows[number, :1],
                    "captions": [f"The title of product {start + number}"],
                    "caption_vectors": rows[number, 1:],
                    "attributes": {"price": number % 100, "category": f"category {number % 50}", "in_stock": True},
                }
                for number in range(min(CHUNK, count - start))
            )
        filled = time.perf_counter() - began
        singles = []
        for number in range(50):
            began = time.perf_counter()
            catalog.upsert([{"id": f"single {number}", "image_vectors": generator.normal(size=(1, DIMENSION))}])
            singles.append(time.perf_counter() - began)
    return {"items_per_second": round(count / filled), "one_upsert_milliseconds": round(median(singles) * 1000, 2)}


def first_search(folder: Path, options: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Return the medians of what fresh processes say."""
    said = []
    for _ in range(repeats):
        began = time.perf_counter()
        command = [sys.executable, "-c", FIRST_SEARCH, str(folder), json.dumps(options)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        said.append({**json.loads(ran.stdout), "process_seconds": time.perf_counter() - began})
    numbers = {name: round(median(one[name] for one in said), 3) for name in said[0] if name != "heavy"}
    return {**numbers, "heavy_modules_loaded": said[0]["heavy"]}


def unchanged_build(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Return how long a first build takes, and the median of builds that find nothing to do."""
    photos = folder / "photos"
    photos.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(photos / f"{number:05d}.png")
        (photos / f"{number:05d}.txt").write_text(f"picture number {number}\n", encoding="utf-8")
    seconds = []
    with Catalog.open(folder / "built", encoder=Colors()) as catalog:
        for turn in range(repeats + 1):
            began = time.perf_counter()
            pairs = read_pairs(photos)
            read = time.perf_counter()
            report = catalog.build(pairs)
            seconds.append((read - began, time.perf_counter() - read))
            assert (report.added, report.unchanged) == ((count, 0) if turn == 0 else (0, count))  # noqa: S101 - a wrong build has no time
    (_, first), *rest = seconds
    return {
        "items": count,
        "first_build_seconds": round(first, 2),
        "unchanged_read_pairs_seconds": round(median(read for read, _ in rest), 2),
        "unchanged_build_seconds": round(median(build for _, build in rest), 2),
        "unchanged_seconds": round(median(read + build for read, build in rest), 2),
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "items": options.items,
            "dimension": DIMENSION,
            "filling": fill(folder / "c", options.items),
            "bytes": sum(path.stat().st_size for path in (folder / "c").iterdir()),
            "fresh_process": first_search(folder / "c", {}, options.repeats),
            "fresh_process_filtered": first_search(folder / "c", {"where": {"price": {"$lt": 50}}}, options.repeats),
            "fresh_process_rare": first_search(folder / "c", {"where": {"price": 7}}, options.repeats),
            "unchanged_build": unchanged_build(folder, options.pictures, options.repeats),
        }
    print(json.dumps(results, indent=2))
    print(write_results("catalog", {**results, "table": format_table(results)}))


def format_table(results: dict[str, Any]) -> dict[str, object]:
    """Return the README's table."""
    first, filtered, build = (results[name] for name in ("fresh_process", "fresh_process_filtered", "unchanged_build"))
    rows = [
        ["open and first search(vector=...)", first["open_and_first_search_seconds"], first["read_megabytes"]],
        ["the same with a filter", filtered["open_and_first_search_seconds"], filtered["read_megabytes"]],
        [f"build of {build['items']:,} unchanged items", build["unchanged_seconds"], None],
    ]
    return {"columns": [f"{results['items']:,} items, fresh process", "seconds", "MB read"], "rows": rows}


if __name__ == "__main__":
    main()
