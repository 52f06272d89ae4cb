"""Helpers of the service's benchmarks: a catalog with precomputed vectors, the service as a process, a client."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from index.vectors import Rows, unit_rows
from retrieval.catalog import Catalog
from retrieval.encoder import load_encoder

COLORS = ("black", "white", "red", "blue", "green", "yellow", "grey", "brown", "pink", "purple")
KINDS = ("dress", "shirt", "shoe", "bag", "hat", "jacket", "watch", "chair", "lamp", "cup", "ball", "guitar")
_BATCH = 5000


def queries(count: int) -> list[str]:
    """Different texts, as people type them."""
    texts = [
        f"{color} {kind} {rest}"
        for rest in ("", "for women", "with stripes", "on sale")
        for color in COLORS
        for kind in KINDS
    ]
    return [texts[(place * 7919) % len(texts)].strip() for place in range(count)]


def items(rows: Rows, *, first: int = 0) -> Iterator[dict[str, Any]]:
    """One item for each row, with a title, a price, a colour, a kind and a SKU."""
    for number, row in enumerate(rows, start=first):
        color, kind = COLORS[number % len(COLORS)], KINDS[number // 3 % len(KINDS)]
        yield {
            "id": f"item-{number}",
            "image_vectors": [row],
            "captions": [f"{color} {kind} number {number}"],
            "caption_vectors": [row],
            "attributes": {
                "color": color,
                "kind": kind,
                "price": number * 37 % 1000 / 10,
                "sku": f"SKU{number:06d}",
                "version": 0,
            },
        }


def vectors_near(texts: Rows, count: int, *, seed: int = 0) -> Rows:
    """Unit rows, (count, d), around those of texts, with neighborhoods like those of images."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, texts.shape[1])).astype(np.float32) / np.sqrt(texts.shape[1])
    return unit_rows(texts[generator.integers(0, len(texts), count)] + 1.2 * noise)


def make_catalog(folder: Path, count: int) -> Path:
    """Create a catalog of `count` items with precomputed vectors, searched with the starter."""
    encoder = load_encoder("starter")
    rows = vectors_near(encoder.encode_texts(queries(200)), count)
    with Catalog.open(folder, encoder=encoder) as catalog:
        for first in range(0, count, _BATCH):
            catalog.upsert(items(rows[first : first + _BATCH], first=first))
    return folder


class Client:
    """A persistent connection; after an error the next request opens another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, *, lines: Iterable[Any] | None = None) -> tuple[int, Any]:
        """Return the status and the response: JSON, or the lines of NDJSON.

        Raises:
            OSError, HTTPException: The service is down.
        """
        data = json.dumps(body) if body is not None else None
        kind = "application/json"
        if lines is not None:
            data, kind = "".join(json.dumps(line) + "\n" for line in lines), "application/x-ndjson"
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            self._connection.request(method, path, data, {"Content-Type": kind} if data else {})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException):
            self._connection.close()
            self._connection = None
            raise
        if "ndjson" in (answer.getheader("Content-Type") or ""):
            return answer.status, [json.loads(line) for line in text.splitlines()]
        return answer.status, json.loads(text) if text else None

    def item(self, name: str) -> dict[str, Any] | None:
        """Return an item; None where there is none."""
        status, answer = self.ask("GET", f"/items/{quote(name, safe='')}")
        return answer if status == 200 else None


@dataclass
class Service:
    """A running `retrieval serve`."""

    process: subprocess.Popen[str]
    port: int
    start_seconds: float

    def kill(self) -> None:
        """Kill the process as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def mapped_mb(self, suffix: str) -> float:
        """Resident memory of the mapped files whose names end so."""
        kilobytes, counts = 0, False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text(encoding="utf-8").splitlines():
            if not line.partition(" ")[0].endswith(":"):  # begins the next mapping
                counts = line.endswith(suffix)
            elif counts and line.startswith("Rss:"):
                kilobytes += int(line.split()[1])
        return kilobytes / 1024


def start(catalog: Path, *flags: str, port: int = 0, environment: dict[str, str] | None = None) -> Service:
    """Start the service and wait until it is ready."""
    since = time.perf_counter()
    command = [sys.executable, "-m", "retrieval", "serve", str(catalog), "--port", str(port), *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})}
    )
    for line in process.stderr or ():
        if " at http://" in line:
            found = int(line.split(" at http://")[1].split()[0].rstrip("/").rpartition(":")[2])
            return Service(process, found, time.perf_counter() - since)
    raise RuntimeError(f"the service did not start: exit code {process.wait()}")


@contextmanager
def serving(catalog: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Service]:
    """Run the service, and terminate it at the end."""
    service = start(catalog, *flags, environment=environment)
    try:
        yield service
    finally:
        service.process.terminate()
        service.process.wait(timeout=60)
