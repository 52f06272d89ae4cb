"""Helpers of the service's tests: a small shop, its application, and a client."""

import base64
import json
import threading
import time
from contextlib import contextmanager
from io import BytesIO

from fake_encoder import FakeEncoder
from PIL import Image
from starlette.testclient import TestClient

from retrieval.catalog import Catalog
from retrieval.server import Settings, make_app
from retrieval.server.uvicorn_server import serve

COLORS = ("red", "green", "blue", "white", "black")
READ = {"Authorization": "Bearer a-key-that-reads-0123456789"}
WRITE = {"Authorization": "Bearer a-key-that-writes-0123456789"}
KEYS = Settings(read_keys=("a-key-that-reads-0123456789",), write_keys=("a-key-that-writes-0123456789",))
LINES = {"Content-Type": "application/x-ndjson"}


class CountingEncoder(FakeEncoder):
    """Also counts forward passes."""

    passes = 0

    def encode_texts(self, texts):
        """One row for each text."""
        self.passes += 1
        return super().encode_texts(texts)


def image_bytes(color="red", *, size=(300, 200), form="PNG"):
    """Return the file of an image of one color."""
    file = BytesIO()
    Image.new("RGB", size, color).save(file, form)
    return file.getvalue()


def to_base64(data):
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def make_shop(folder, *, encoder=None):
    """Return an open catalog of one item for each color, with an image, a caption and a price."""
    for color in COLORS:
        (folder / f"{color}.png").write_bytes(image_bytes(color))
    catalog = Catalog.open(folder / "c", encoder=encoder or CountingEncoder())
    catalog.upsert(
        {
            "id": color,
            "images": [folder / f"{color}.png"],
            "captions": [f"a {color} square"],
            "attributes": {"price": 10 * price, "color": color.upper()},
        }
        for price, color in enumerate(COLORS)
    )
    return catalog


@contextmanager
def serving(catalog, settings=None, **options):
    """Yield a client of an application that is ready."""
    app = make_app(catalog, settings or Settings(batch_size=8))
    with TestClient(app, base_url="http://localhost", **options) as client:
        wait_until_ready(client)
        yield client


def wait_until_ready(client):
    """Wait until the service is ready."""
    wait_until(lambda: client.get("/ready").status_code == 200)


def wait_until(condition):
    """Wait until a condition is true, at most half a minute."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.005)


def send_lines(client, changes, **options):
    """Send changes as a bulk request, and return the result of each line."""
    lines = "\n".join(json.dumps(change) for change in changes)
    answer = client.post("/items", content=lines, headers=LINES | options.pop("headers", {}), **options)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@contextmanager
def served(catalog, settings):
    """Yield the URL of a service that runs in a thread of this process."""
    ready, address, failed = threading.Event(), [], []
    app = make_app(catalog, settings)

    def run():
        try:
            serve(app, on_ready=lambda url: (address.append(url), ready.set()), stop=stop)
        except BaseException as error:
            failed.append(error)
            ready.set()
            raise

    stop = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        assert not failed
        yield address[0]
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
