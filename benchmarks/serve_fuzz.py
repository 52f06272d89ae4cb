"""Does a hostile client get more than a clear refusal? Mutated bodies and uploads; oversized, slow, cut-off requests.

    python benchmarks/serve_fuzz.py --requests 10000

Every request is a valid one with bytes changed, cut, doubled or exchanged: searches as JSON, images as multipart and in
base64, items, patches, bulk lines. The benchmark counts responses by status; 5xx and broken connections are failures.
It reads the service's memory after a fifth of the requests, when all code paths are warm, and at the end.
"""

import argparse
import base64
import json
import random
import socket
import tempfile
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from common import write_results
from PIL import Image, ImageDraw
from serving import make_catalog, serving

COLUMNS = [
    "requests",
    "2xx",
    "4xx",
    "5xx",
    "broken connections",
    "MB after a fifth",
    "MB at the end",
    "alive at the end",
]
_EDGES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"}",
    b"[" * 500,
    b"9" * 400,
    b"-1e999",
    b"NaN",
    b"null",
    b"\xed\xa0\x80",
    b"$ne",
    b"../",
)


class Sent(NamedTuple):
    """A request to send."""

    method: str
    path: str
    kind: str
    body: bytes


def main() -> None:
    """Send requests, count statuses, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chosen, counts, worst = random.Random(given.seed), Counter[str](), Counter[str]()
    memory = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(make_catalog(Path(folder) / "c", 300), environment={"RETRIEVAL_CLIENT_TIMEOUT": "1"}) as service,
    ):
        right = make_requests(chosen)
        connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
        for place in range(given.requests):
            sent = chosen.choice(right)
            sent = sent._replace(body=mutate(sent.body, chosen))
            try:
                connection.request(sent.method, sent.path, sent.body, {"Content-Type": sent.kind})
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, HTTPException) as error:
                counts["broken"] += 1
                worst[repr(error)] += 1
                connection.close()
                continue
            counts[f"{answer.status // 100}xx"] += 1
            if answer.status >= 500 or (answer.status >= 400 and "error" not in json.loads(text)):
                worst[f"{sent.method} {sent.path} {answer.status} {text[:200]!r}"] += 1
            if place == given.requests // 5:
                memory.append(service.memory_mb())
        rude = {name: act(service.port) for name, act in RUDE.items()}
        memory.append(service.memory_mb())
        alive = service.process.poll() is None and answers_search(service.port)
    row = [str(given.requests), *(str(counts[one]) for one in ("2xx", "4xx", "5xx", "broken"))]
    row += [f"{one:.0f}" for one in memory] + ["yes" if alive else "no"]
    results = {"statuses": dict(counts), "worst": dict(worst.most_common(20)), "rude": rude}
    print(row, results)
    print("wrote", write_results("serve_fuzz", {"table": {"columns": COLUMNS, "rows": [row]}, **results}))


def make_requests(chosen: random.Random) -> list[Sent]:
    """Valid requests of every kind."""
    found = []
    for number in range(12):
        picture = draw_image(chosen, ("PNG", "JPEG", "WEBP", "GIF")[number % 4])
        text = base64.b64encode(picture).decode()
        item = {
            "id": f"fuzz-{number}",
            "captions": ["a ball"],
            "attributes": {"price": number},
            "images": [{"data": text}],
        }
        search = {
            "text": "red ball",
            "where": {"price": {"$lt": number}},
            "facets": ["color"],
            "sort": ["-price"],
            "k": 3,
        }
        part = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture
        found += [
            Sent("POST", "/search", "application/json", json.dumps(search).encode()),
            Sent("POST", "/search", "application/json", json.dumps({"image": text, "minus": "blue"}).encode()),
            Sent("POST", "/search", "multipart/form-data; boundary=xyz", part + b"\r\n--xyz--\r\n"),
            Sent("PUT", f"/items/fuzz-{number}", "application/json", json.dumps(item).encode()),
            Sent(
                "PATCH", f"/items/fuzz-{number}", "application/json", json.dumps({"attributes": {"new": True}}).encode()
            ),
            Sent("POST", "/items", "application/x-ndjson", b"\n".join([json.dumps({"put": item}).encode()] * 3)),
            Sent("POST", "/items", "application/x-ndjson", json.dumps({"delete": f"fuzz-{number}"}).encode()),
        ]
    return found


def draw_image(chosen: random.Random, form: str) -> bytes:
    """A small image file."""
    image = Image.new("RGB", (64, 48), chosen.choice(["red", "white", "blue"]))
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=chosen.choice(["green", "black", "yellow"]))
    file = BytesIO()
    image.save(file, form)
    return file.getvalue()


def mutate(body: bytes, chosen: random.Random) -> bytes:
    """Change the bytes in one to four places."""
    for _ in range(chosen.randint(1, 4)):
        place = chosen.randrange(len(body) + 1)
        end = min(len(body), place + chosen.choice([0, 1, 1, 4, 64]))
        how = chosen.randrange(4)
        if how == 0:
            body = body[:place] + bytes(chosen.randrange(256) for _ in range(end - place)) + body[end:]
        elif how == 1:
            body = body[:place] + chosen.choice(_EDGES) + body[end:]
        elif how == 2:
            body = body[:place] + body[place:end] * 3 + body[end:]
        elif chosen.random() < 0.3:
            body = body[:place]
    return body


# --- requests that no HTTP client sends


def make_head(*fields: str) -> bytes:
    """The head of a search."""
    lines = ["POST /search HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def send_oversized(port: int) -> str:
    """Announce a large body, and send none."""
    return send_raw(port, [make_head("Content-Length: 99999999999")])


def send_chunked(port: int) -> str:
    """Send 64 MB in chunks."""
    return send_raw(port, [make_head("Transfer-Encoding: chunked")] + [b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 64)


def send_slowly(port: int) -> str:
    """Send one byte of the body, and then nothing."""
    return send_raw(port, [make_head("Content-Length: 20") + b"{"])


def cut_off(port: int) -> str:
    """Close the connection within the body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(make_head("Content-Length: 200") + b'{"te')
    return "closed by the client"


def send_endless_head(port: int) -> str:
    """Send a head that never ends."""
    return send_raw(port, [b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000])


RUDE = {
    "oversized": send_oversized,
    "chunked": send_chunked,
    "slow": send_slowly,
    "cut off": cut_off,
    "endless head": send_endless_head,
}


def send_raw(port: int, parts: list[bytes]) -> str:
    """Send bytes; return the first line of the response and its time."""
    since = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it was answered before all was sent
        try:
            answer = connection.recv(200)
        except OSError as error:
            return f"{type(error).__name__} after {time.perf_counter() - since:.1f} s"
    line = answer.split(b"\r\n")[0].decode("latin-1") or "closed"
    return f"{line} after {time.perf_counter() - since:.1f} s"


def answers_search(port: int) -> bool:
    """Whether a valid request is answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/search", b'{"text": "a red ball"}', {"Content-Type": "application/json"})
    return connection.getresponse().status == 200


if __name__ == "__main__":
    main()
