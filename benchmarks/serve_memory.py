"""How much memory does the service take above the vectors that it maps, with the starter on either engine?

    python benchmarks/serve_memory.py --items 100000

Resident memory of `retrieval serve` by what the kernel says of its mappings: after the start, and after searches by 16
clients of every kind. Vectors are the pages of the vector files, which are the page cache's and go when others need
the room.
"""

import argparse
import base64
import tempfile
import threading
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from common import write_results
from PIL import Image
from serving import Client, Service, make_catalog, queries, serving

CLIENTS, SEARCHES = 16, 20
WHERE = {"color": "red", "price": {"$lt": 50}}
LOADS: Mapping[str, Mapping[str, Any]] = {
    "by vectors": {"mode": "vectors"},
    "hybrid": {},
    "filtered": {"where": WHERE},
    "facets and sort": {"where": WHERE, "facets": ["color", "kind", "price"], "sort": ["price"]},
}
COLUMNS = ["engine", "items", "moment", "resident MB", "of it vectors", "above its vectors"]


def main() -> None:
    """Serve the same catalog with both engines, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    given = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        catalog = make_catalog(Path(folder) / "catalog", given.items)
        for engine in ("onnx", "torch"):
            with serving(catalog, environment={"RETRIEVAL_ENGINE": engine}) as service:
                rows.append([engine, f"{given.items:,}", "started", *measure(service)])
                print(*rows[-1], sep=" | ", flush=True)
                for options in LOADS.values():
                    search(service, options)
                search_by_picture(service)
                rows.append([engine, f"{given.items:,}", "after searches", *measure(service)])
                print(*rows[-1], sep=" | ", flush=True)
    print("wrote", write_results("serve_memory", {"table": {"columns": COLUMNS, "rows": rows}}))


def measure(service: Service) -> list[str]:
    """Return the service's resident memory, that of its vector files and the rest, in MB."""
    resident = service.memory_mb()
    vectors = service.mapped_mb(".f32")
    return [f"{resident:.0f}", f"{vectors:.0f}", f"{resident - vectors:.0f}"]


def search(service: Service, options: Mapping[str, Any]) -> None:
    """Search by as many texts at a time as there are clients."""
    texts = queries(CLIENTS * SEARCHES)

    def client(number: int) -> None:
        own = Client(service.port)
        for text in texts[number::CLIENTS]:
            status, answer = own.ask("POST", "/search", {"text": text, **options})
            if status != 200:
                raise RuntimeError(f"{status}: {answer}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def search_by_picture(service: Service) -> None:
    """Search by one picture, which loads the other tower."""
    file = BytesIO()
    Image.effect_noise((640, 480), 80).convert("RGB").save(file, "JPEG")
    image = base64.b64encode(file.getvalue()).decode()
    status, answer = Client(service.port).ask("POST", "/search", {"image": image})
    if status != 200:
        raise RuntimeError(f"{status}: {answer}")


if __name__ == "__main__":
    main()
