"""Limits of requests on a real socket: bodies, slow clients, queues, time, and shutdown."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import pytest
from fake_encoder import DIMENSION
from serving import COLORS, LINES, CountingEncoder, image_bytes, make_shop, served, serving, wait_until

from retrieval.errors import EncoderError, ServiceError
from retrieval.server import Settings, make_app
from retrieval.server.uvicorn_server import _listen, serve

VECTOR = [1.0] * DIMENSION
SMALL = Settings(port=0, batch_size=8, max_body=20_000, client_timeout=1.0, queue=4)
post, get = partial(httpx2.post, timeout=30), partial(httpx2.get, timeout=30)


class HeldEncoder(CountingEncoder):
    """Encodes texts once it is released."""

    def __init__(self):
        """Begin released."""
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.begun = []
        self.sizes = []

    def encode_texts(self, texts):
        """Wait, then one row for each text."""
        self.begun.append(len(texts))
        self.free.wait(30)
        self.sizes.append(len(texts))
        return super().encode_texts(texts)


@pytest.fixture
def encoder():
    encoder = HeldEncoder()
    yield encoder
    encoder.free.set()


@pytest.fixture
def shop(tmp_path, encoder):
    with make_shop(tmp_path, encoder=encoder) as catalog:
        yield catalog


@pytest.fixture
def url(shop):
    with served(shop, SMALL) as url:
        yield url


def raw(url, data):
    """Send bytes; return the response, and whether the service closed the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except TimeoutError:
            return b"".join(parts), False
        except ConnectionResetError:
            pass
        return b"".join(parts), True


def port_of(url):
    return int(url.rpartition(":")[2])


def waiting(url):
    """Return the number of searches in the queue."""
    return float(re.search(r'retrieval_waiting\{what="searches"\} (.*)', get(f"{url}/metrics").text)[1])


def head(line, **headers):
    lines = [line, "Host: localhost", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


# --- bodies


def test_a_too_large_content_length_is_refused_before_the_body_is_sent(url):
    data, closed = raw(url, head("POST /search HTTP/1.1", Content_Type="application/json", Content_Length=10**12))
    assert data.startswith(b"HTTP/1.1 413 ")
    assert closed


def test_a_chunked_body_is_refused_once_it_is_too_large(url):
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    kind = {"Content_Type": "application/json", "Transfer_Encoding": "chunked", "Connection": "close"}
    request = head("POST /search HTTP/1.1", **kind)
    data, closed = raw(url, request + chunk * 6)
    assert data.startswith(b"HTTP/1.1 413 ")
    assert closed
    fits, _ = raw(url, request + chunk * 3 + b'd\r\n{"like":"red"\r\n1\r\n}\r\n0\r\n\r\n')
    assert fits.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "1,2"])
def test_a_malformed_content_length_is_refused(url, length):
    data, _ = raw(url, head("POST /search HTTP/1.1", Content_Type="application/json", Content_Length=length))
    assert data.startswith(b"HTTP/1.1 400 ")


def test_content_length_with_transfer_encoding_is_refused_and_the_connection_closed(url):
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    both = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    answer, _ = raw(url, start + both + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"alive" not in answer


def test_a_stalled_body_times_out(url):
    request = head("POST /search HTTP/1.1", Content_Type="application/json", Content_Length=100)
    data, closed = raw(url, request + b"{")
    assert data.startswith(b"HTTP/1.1 408 ")
    assert closed


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01"])
def test_a_stalled_request_head_times_out(url, data):
    _, closed = raw(url, data)
    assert closed


def test_a_stalled_head_on_a_reused_connection_times_out(url):
    data, closed = raw(url, head("GET /health HTTP/1.1") + b"GET /hea")
    assert data.startswith(b"HTTP/1.1 200 ")
    assert closed


def test_bulk_lines_are_answered_while_more_are_sent(shop):
    def lines():
        for color in COLORS[:2]:
            yield json.dumps({"delete": color}).encode() + b"\n"
            time.sleep(0.8)  # longer than a batch waits for more

    with served(shop, replace(SMALL, client_timeout=15.0)) as url:
        answer = post(f"{url}/items", content=lines(), headers=LINES)
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 200]


def test_an_incomplete_last_line_is_not_applied_but_complete_ones_are(url, shop):
    kind = {"Content_Type": "application/x-ndjson", "Content_Length": 1000, "Connection": "close"}
    request = head("POST /items HTTP/1.1", **kind)
    data, _ = raw(url, request + b'{"delete": "red"}\n{"delete": "bl')
    assert b'"status": 200' in data
    assert b'"status": 408' in data
    with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
        connection.sendall(request + b'{"delete": "green"}')
    time.sleep(0.2)
    assert {color for color in COLORS if shop.search(where={"color": color.upper()})} == {*COLORS} - {"red"}


def test_pending_bodies_take_bounded_memory(shop):
    """The limit is 1,000 bytes for each, and 16 times as much for all together."""
    with served(shop, Settings(port=0, batch_size=8, max_body=1000, client_timeout=60.0)) as url:
        request = head("POST /search HTTP/1.1", Content_Type="application/json", Content_Length=1000) + b" " * 999
        with ExitStack() as stack:
            for _ in range(17):
                stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)))).sendall(request)
            large = {"like": "red" + " " * 500}
            wait_until(lambda: post(f"{url}/search", json=large).status_code == 503)  # once all of it came
            assert post(f"{url}/search", json=large).headers["retry-after"] == "1"
        wait_until(lambda: post(f"{url}/search", json={"like": "red"}).status_code == 200)


# --- time and queues


def test_concurrent_searches_share_a_forward_pass(url, encoder):
    async def ask(texts):
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            tasks = [asyncio.create_task(client.post("/search", json={"text": text, "k": 1})) for text in texts]
            await asyncio.to_thread(wait_until, lambda: sum(encoder.begun) + waiting(url) == 4)
            encoder.free.set()
            return [(await task).json()["hits"][0]["id"] for task in tasks]

    encoder.begun.clear()
    encoder.sizes.clear()
    encoder.free.clear()
    assert asyncio.run(ask(["red", "blue", "white", "black"])) == ["red", "blue", "white", "black"]
    assert sum(encoder.sizes) == 4
    assert len(encoder.sizes) <= 2  # the first may have gone alone


def test_a_full_queue_is_503_and_a_slow_search_504(shop, encoder):
    async def ask(url):
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            first = asyncio.create_task(client.post("/search", json={"text": "red"}))
            await asyncio.to_thread(wait_until, lambda: encoder.begun)
            tasks = [asyncio.create_task(client.post("/search", json={"text": "red"})) for _ in range(6)]
            return [await task for task in (first, *tasks)]

    with served(shop, replace(SMALL, timeout=3.0)) as url:
        encoder.begun.clear()
        encoder.free.clear()
        answers = asyncio.run(ask(url))
        assert sorted(answer.status_code for answer in answers) == [503, 503, 504, 504, 504, 504, 504]
        assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
        encoder.free.set()
        assert post(f"{url}/search", json={"text": "red", "k": 1}).json()["hits"][0]["id"] == "red"


def test_a_disconnected_client_does_not_fail_its_batch(url, encoder):
    encoder.free.clear()
    body = json.dumps({"text": "red"}).encode()
    request = head("POST /search HTTP/1.1", Content_Type="application/json", Content_Length=len(body)) + body
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port_of(url))) as connection:
            connection.sendall(request)
            time.sleep(0.05)
    encoder.free.set()
    assert post(f"{url}/search", json={"text": "blue", "k": 1}).json()["hits"][0]["id"] == "blue"


def test_max_pixels_limits_query_images(shop):
    data = image_bytes("blue", size=(1000, 1000), form="BMP")
    with serving(shop, Settings(batch_size=1, max_pixels=999_999)) as client:
        answer = client.post("/search", files={"image": ("a.bmp", data)})
        assert (answer.status_code, "1,000,000 pixels" in answer.json()["error"]) == (422, True)
    with serving(shop, Settings(batch_size=1)) as client:
        assert client.post("/search", files={"image": ("a.bmp", data)}).status_code == 200


# --- starting and stopping


def test_listening_socket_sets_tcp_nodelay():
    """Asyncio sets TCP_NODELAY only for a socket that names its protocol."""
    with _listen("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_in_use_is_a_service_error(shop):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(port=taken.getsockname()[1], batch_size=1)
        with pytest.raises(ServiceError, match="cannot listen on"):
            serve(make_app(shop, settings), on_ready=print)


def test_serve_raises_the_error_of_the_warm_up(shop, monkeypatch):
    def failing(_self):
        raise EncoderError("the model is gone")

    monkeypatch.setattr("retrieval.server.catalog_api.CatalogAPI.warm_up", failing)
    with pytest.raises(EncoderError, match="gone"):
        serve(make_app(shop, Settings(port=0)), on_ready=print)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from fake_encoder import FakeEncoder
from retrieval.catalog import Catalog
from retrieval.server import Settings, make_app
from retrieval.server.uvicorn_server import _listen, serve

class Slow(FakeEncoder):
    def encode_texts(self, texts):
        if "slow" in texts:
            print("asked", flush=True)
            sys.stdin.readline()
        return super().encode_texts(texts)

with Catalog.open(sys.argv[1], encoder=Slow()) as catalog:
    serve(make_app(catalog, Settings(port=0, batch_size=1)), on_ready=lambda url: print(url, flush=True))
print("closed", flush=True)
"""


def refuses(url):
    """Whether nothing listens any more; a client may also be cut off while the service stops listening."""
    try:
        get(f"{url}/health")
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:
        return False
    return False


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_progress_finish_and_exits_with_success(tmp_path, kind):
    make_shop(tmp_path).close()
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(post(f"{url}/search", json={"text": "slow"}, timeout=60))
        )
        asking.start()
        assert process.stdout.readline() == "asked\n"
        os.kill(process.pid, kind)
        wait_until(lambda: refuses(url))
        process.stdin.write("go on\n")
        process.stdin.flush()
        asking.join()
        assert answers[0].status_code == 200
        assert process.stdout.read() == "closed\n"
    assert process.returncode == 0


def test_the_command_prints_its_url_and_who_has_access(tmp_path):
    from retrieval.catalog import Catalog

    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([{"id": "a", "image_vectors": [[1.0, 0.0]]}])
    command = [sys.executable, "-m", "retrieval", "serve", str(tmp_path / "c"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        url = line.split()[3]
        assert line.startswith("Serving ")
        assert "no keys: open to every program on this machine" in line
        assert post(f"{url}/search", json={"vector": [1, 0]}).json()["hits"][0]["id"] == "a"
        process.terminate()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--host", "0.0.0.0"], "no keys"), (["--keys", "/none"], "cannot be read")],  # noqa: S104
)
def test_invalid_service_settings_are_usage_errors(tmp_path, options, word):
    command = [sys.executable, "-m", "retrieval", "serve", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_missing_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        f"sys.argv = ['retrieval', 'serve', {str(tmp_path)!r}]\n"
        "from retrieval.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'crossmodal-retrieval[serve]'" in done.stderr
