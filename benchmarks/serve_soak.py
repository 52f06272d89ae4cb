"""Does the service lose changes? Clients search and a writer changes items while it is killed again and again.

    python benchmarks/serve_soak.py --items 20000 --clients 16 --kills 10

The writer puts, patches and deletes items, in single and bulk requests, and records what was acknowledged. Each client
searches by the vector of an item that was deleted, or put, before its search began: the former must not be found, the
latter must be the first hit. At random moments the service is killed as by a power cut and restarted. All errors count
except connections that a kill refused or broke. At the end every item is compared with the records.
"""

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from serving import Client, Service, items, make_catalog, start, vectors_near

from retrieval.encoder import load_encoder

STANDING = 2000  # items that are never changed
BULK = 25
COLUMNS = [
    "writes acknowledged",
    "lost",
    "searches",
    "deleted items found",
    "new items missed",
    "other errors",
    "kills",
    "ready again after s",
]


class Notes:
    """The states that each item may be in: more than one while a write is in progress."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.states: dict[str, set[int | None]] = {}  # version, or None for an item that is not there
        self.deleted: list[int] = []
        self.put: list[int] = []
        self.acknowledged = 0

    def begin(self, name: str, state: int | None) -> None:
        """Record that a write may happen from now on."""
        with self.lock:
            self.states.setdefault(name, {None}).add(state)

    def done(self, name: str, state: int | None) -> None:
        """Record that a write was acknowledged."""
        with self.lock:
            self.states[name] = {state}
            self.acknowledged += 1


class Soak:
    """One run."""

    def __init__(self, catalog: Path, vectors: np.ndarray, *, seed: int) -> None:
        self.catalog = catalog
        self.vectors = vectors
        self.items = list(items(vectors, first=STANDING))
        self.notes = Notes()
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.service: Service = start(catalog)
        self.port = self.service.port
        self.up = threading.Event()
        self.up.set()
        self.generation = 0
        self.over = threading.Event()
        self.ready_after: list[float] = []

    # --- the writer

    def write(self) -> None:
        """Put all items; patch some and delete some that were put."""
        client = Client(self.port)
        numbers = list(range(len(self.items)))
        place = 0
        while place < len(numbers):
            size = self.random.choice([1, 1, BULK, 4 * BULK])
            chosen = numbers[place : place + size]
            place += size
            self._change(client, [("put", number) for number in chosen])
            old = [self.random.randrange(max(1, place - size)) for _ in range(max(1, size // 3))]
            self._change(client, [("patch", number) for number in dict.fromkeys(old)])
            gone = [self.random.randrange(max(1, place - size)) for _ in range(max(1, size // 5))]
            self._change(client, [("delete", number) for number in dict.fromkeys(gone)])
        self.over.set()

    def _change(self, client: Client, changes: list[tuple[str, int]]) -> None:
        changes = [(kind, number) for kind, number in changes if kind == "put" or self._is_there(number)]
        if not changes:
            return
        bodies = [self._body(kind, number) for kind, number in changes]
        for (_, number), (_, state) in zip(changes, bodies, strict=True):
            self.notes.begin(self.items[number]["id"], state)
        while True:
            self.up.wait()
            try:
                status, answers = client.ask("POST", "/items", lines=[body for body, _ in bodies])
                break
            except (OSError, HTTPException):
                self.counts["writes broken off by a kill"] += 1
                time.sleep(0.05)
        if status != 200:
            self.errors[f"write {status}: {answers}"] += 1
            return
        for (kind, number), (_, state), answer in zip(changes, bodies, answers, strict=True):
            if answer["status"] >= 400 and not (kind == "delete" and answer["status"] == 404):
                self.errors[f"{kind} {answer['status']}: {answer.get('error')}"] += 1
                continue
            self.notes.done(self.items[number]["id"], state)
            if kind == "put":
                self.notes.put.append(number)
            elif kind == "delete":
                self.notes.deleted.append(number)

    def _is_there(self, number: int) -> bool:
        states = self.notes.states.get(self.items[number]["id"], {None})
        return None not in states

    def _body(self, kind: str, number: int) -> tuple[dict[str, Any], int | None]:
        item = self.items[number]
        if kind == "delete":
            return {"delete": item["id"]}, None
        if kind == "patch":
            version = max(state or 0 for state in self.notes.states[item["id"]]) + 1
            return {"patch": {"id": item["id"], "attributes": {"version": version}}}, version
        vectors = [{"vector": [float(one) for one in row]} for row in item["image_vectors"]]
        captions = [[float(one) for one in row] for row in item["caption_vectors"]]
        body = {"id": item["id"], "captions": item["captions"], "attributes": item["attributes"], "images": vectors}
        return {"put": {**body, "caption_vectors": captions}}, 0

    # --- the clients

    def search(self, number: int) -> None:
        """Search until the writer has finished."""
        client, random_ = Client(self.port), random.Random(number)
        born = self.generation
        while not self.over.is_set():
            self.up.wait()
            generation = self.generation
            if generation != born:  # a connection to the one that was killed breaks, which is no error of this one
                client, born = Client(self.port), generation
            gone = frozenset(self.notes.deleted[-200:])
            deleted = random_.choice(sorted(gone)) if gone and random_.random() < 0.5 else None
            chosen = deleted if deleted is not None else self._standing_put(random_)
            if chosen is None:
                time.sleep(0.01)
                continue
            vector = [float(one) for one in self.vectors[chosen]]
            try:
                status, answer = client.ask("POST", "/search", {"vector": vector, "k": 5})
            except (OSError, HTTPException) as error:
                if generation == self.generation and self.up.is_set():
                    time.sleep(0.5)  # the kill may be noted in a moment
                if generation == self.generation and self.up.is_set():
                    self.errors[f"search: {error!r}"] += 1
                continue
            if status != 200:
                self.errors[f"search {status}: {answer}"] += 1
                continue
            self._judge(chosen, deleted, [hit["id"] for hit in answer["hits"]], gone=gone)

    def _standing_put(self, random_: random.Random) -> int | None:
        put = self.notes.put[-300:]
        return random_.choice(put) if put else None

    def _judge(self, chosen: int, deleted: int | None, found: list[str], *, gone: frozenset[int]) -> None:
        self.counts["searches"] += 1
        if any(self.items[number]["id"] in found for number in gone):
            self.counts["deleted items found"] += 1
        if deleted is None and self.items[chosen]["id"] not in found[:1] and self._is_there(chosen):
            self.counts["new items missed"] += 1

    # --- the kills

    def kill(self, times: int, pause: float) -> None:
        """Kill and start again at random moments while the writer writes."""
        for _ in range(times):
            if self.over.wait(self.random.uniform(0.2, 2 * pause)):
                return
            self.up.clear()
            self.generation += 1
            self.service.kill()
            self.service = start(self.catalog, port=self.port)
            self.ready_after.append(self.service.start_seconds)
            self.counts["kills"] += 1
            self.up.set()

    # --- the end

    def lost(self) -> list[str]:
        """Items that are not as they were acknowledged, after one more restart."""
        self.service.kill()
        self.service = start(self.catalog, port=self.port)
        client = Client(self.port)
        found = []
        for name, states in self.notes.states.items():
            item = client.item(name)
            state = None if item is None else item["attributes"]["version"]
            if state not in states:
                found.append(f"{name} is {state}, not {states}")
        self.service.process.terminate()
        self.service.process.wait()
        return found


def main() -> None:
    """Soak, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = make_catalog(Path(folder) / "catalog", STANDING)
        encoder = load_encoder("starter")
        vectors = vectors_near(encoder.encode_texts(["a thing"]), given.items, seed=given.seed + 1)
        soak = Soak(catalog, vectors, seed=given.seed)
        since = time.perf_counter()
        threads = [threading.Thread(target=soak.search, args=(number,)) for number in range(given.clients)]
        threads += [
            threading.Thread(target=soak.write),
            threading.Thread(target=soak.kill, args=(given.kills, given.pause)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - since
        lost = soak.lost()
    counts, errors = soak.counts, dict(soak.errors)
    again = f"{np.mean(soak.ready_after):.1f}" if soak.ready_after else "-"
    row = [soak.notes.acknowledged, len(lost), counts["searches"], counts["deleted items found"]]
    row += [counts["new items missed"], sum(errors.values()), counts["kills"], again]
    results = {
        "items": given.items,
        "clients": given.clients,
        "seconds": round(seconds, 1),
        "counts": dict(counts),
        "errors": dict(list(errors.items())[:20]),
        "lost": lost[:20],
        "ready_after_s": [round(one, 2) for one in soak.ready_after],
        "table": {"columns": COLUMNS, "rows": [[str(one) for one in row]]},
    }
    print(results)
    print("wrote", write_results("serve_soak", results))


if __name__ == "__main__":
    main()
