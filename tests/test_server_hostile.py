"""Hostile requests: none causes a server error, or reveals anything."""

import base64
import json
import random
import zlib

import pytest
import schemathesis
from fake_encoder import DIMENSION
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from serving import LINES, image_bytes, make_shop, send_lines, served, serving, to_base64

from retrieval.server import Settings

VECTOR = [1.0] * DIMENSION
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with make_shop(tmp_path_factory.mktemp("shop")) as catalog:
        yield catalog


@pytest.fixture(scope="module")
def client(shop):
    limits = Settings(batch_size=4, max_body=300_000, max_pixels=1_000_000, max_lines=50)
    with serving(shop, limits, raise_server_exceptions=True) as client:
        yield client


def refused(answer):
    """Whether a response is a client error in our form that reveals nothing internal."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert list(answer.json()) == ["error"]
    assert "Traceback" not in answer.text
    assert "/tmp" not in answer.text  # noqa: S108
    return True


@schemathesis.serializer("application/x-ndjson")
def as_line(_context, value):
    """Serialize a drawn value as one line."""
    return json.dumps(value).encode()


def test_requests_drawn_from_the_openapi_document_never_cause_a_server_error(tmp_path):
    """Schemathesis draws valid and invalid requests."""
    failed = CHECKS.get_by_names(["not_a_server_error"])
    seen = set()
    with make_shop(tmp_path) as catalog, served(catalog, Settings(port=0, batch_size=4, max_body=100_000)) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()

            @given(case=operation.as_strategy())
            @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def ask(case):
                seen.add((case.method, case.path))
                case.validate_response(case.call(), checks=failed)

            ask()
    assert len(seen) == 12


HARD = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"NaN",
    b'{"text": NaN}',
    b'{"vector": [1e999]}',
    b'{"k": ' + b"9" * 5000 + b"}",
    b'{"k": 99999999999999999999}',
    b'{"where": {"price": 99999999999999999999}}',
    b'{"where": {"price": {"$lt": 1e999}}}',
    b'{"text": "\\ud800"}',
    b'{"where": {"\\udfff": 1}}',
    b'{"where": {"a": "\\u0000"}}',
    b'{"text": "a\\u0000b"}',
    b'{"like": "\\u0000"}',
    b"[" * 100_000,
    b'{"where": ' * 5000,
    b'{"where": {"$not": ' * 30 + b"{}" + b"}}" * 30,
    b'{"text": "\xff"}',
    b"\xef\xbb\xbf{}",
    '{"text": "red"}'.encode("utf-16"),
    b'{"vector": [' + b"1," * 100_000 + b"1]}",
    b'{"facets": {"a": [[]]}}',
    b'{"sort": [""]}',
    b'{"boosts": [{"attribute": "a", "weight": 5}]}',
    b'{"image": "' + b"A" * 290_000 + b'"}',
    b'{"image": ""}',
    b'{"effort": true}',
    b'{"weights": {"text": 1}}',
    b'{"mode": "words"}',
]


@pytest.mark.parametrize("body", HARD, ids=range(len(HARD)))
def test_malformed_or_invalid_json_is_refused(client, body):
    for method, address in (("POST", "/search"), ("PUT", "/items/new"), ("PATCH", "/items/red")):
        assert refused(client.request(method, address, content=body, headers=JSON))
    line = client.post("/items", content=body.replace(b"\n", b""), headers=LINES)
    assert all(json.loads(one)["status"] >= 400 for one in line.text.splitlines())
    assert client.get("/items/new").status_code == 404


@pytest.mark.parametrize(
    "value", [{"a": {"b": {"c": [[[1]]]}}}, {"": 1}, {"a.b": 1, "a": {"b": 2}}, {"$where": "1"}, {"é": "ß"}]
)
def test_attributes_may_be_any_json(client, value):
    assert client.put("/items/odd", json={"images": [{"vector": VECTOR}], "attributes": value}).status_code in {
        200,
        201,
    }
    assert client.get("/items/odd").json()["attributes"] == value
    client.delete("/items/odd")


def bomb(side=30_000):
    """Return a PNG of 900 megapixels in a few kilobytes."""
    rows = zlib.compress(b"\0" * (side // 8 + 1) * 200, 9)

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


UPLOADS = {
    "bomb": bomb(),
    "cut": image_bytes(size=(200, 200), form="JPEG")[:300],
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<html><script>alert(1)</script></html>",
    "postscript": b"%!PS\n(/etc/passwd) (r) file",
    "pdf": b"%PDF-1.4",
    "zip": b"PK\3\4" + b"\0" * 100,
    "path": b"/etc/passwd",
    "url": b"http://169.254.169.254/latest/meta-data/",
    "empty": b"",
    "zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_file_that_is_no_image_is_refused_on_every_route(client, name):
    data = UPLOADS[name]
    assert refused(client.post("/search", files={"image": ("a.png", data, "image/png")}))
    assert refused(client.post("/search", json={"image": to_base64(data)}))
    assert refused(client.put("/items/new", json={"images": [{"data": to_base64(data)}]}))
    (answer,) = send_lines(client, [{"put": {"id": "new", "images": [{"data": to_base64(data)}]}}])
    assert answer["status"] == 422
    assert client.get("/items/new").status_code == 404


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
def test_a_damaged_image_is_refused_or_searched_with(client, form):
    good = image_bytes("blue", size=(40, 30), form=form)
    draw = random.Random(form)
    for _ in range(20):
        data = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        answer = client.post("/search", files={"image": ("a", bytes(data[: draw.randint(1, len(data))]))})
        assert answer.status_code == 200 or refused(answer)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x--\r\n",
        b"--x\r\n",
        b"--y\r\n\r\n",
        PART % (b"image", b"red"),
        PART % (b"request", b'{"k": 0}') + b"--x--\r\n",
        PART % (b"request", b"\xff\xfe") + b"--x--\r\n",
        PART % (b"\xff", b"a") + b"--x--\r\n",
        (PART % (b"request", b"{}")) * 10 + b"--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="../../etc/passwd"\r\n\r\nx\r\n--x--\r\n',
        b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--\r\n",
        b"--x\r\n\r\nx\r\n--x--\r\n",
        b"--x\r\n" + b"A" * 100_000,
        b"--x\r\n" + b"A: b\r\n" * 10_000,
        b"\0" * 1000,
    ],
)
def test_a_malformed_form_is_refused(client, body):
    assert refused(client.post("/search", content=body, headers=FORM))


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 10_000,
        'multipart/form-data; boundary="\xff"',
        "multipart/form-data; boundary=x; charset=no-such-charset",
    ],
)
def test_a_form_with_a_malformed_content_type_is_refused(client, kind):
    content = PART % (b"request", b'{"k": 0}') + b"--x--\r\n"
    assert refused(client.post("/search", content=content, headers={"Content-Type": kind.encode("latin-1")}))


def test_too_large_bodies_are_refused(client):
    data = b"x" * 300_001
    assert client.post("/search", content=data, headers=JSON).status_code == 413
    assert client.post("/search", files={"image": ("a", data)}).status_code == 413
    assert client.put("/items/a", content=iter([data[:200_000], data[200_000:]]), headers=JSON).status_code == 413
    (answer,) = (json.loads(one) for one in client.post("/items", content=data, headers=LINES).text.splitlines())
    assert (answer["status"], answer["line"]) == (413, 1)


@pytest.mark.parametrize(
    "address",
    [
        "/items/..%2F..%2Fetc%2Fpasswd",
        "/items/%2e%2e/images/0",
        "/items/red/images/0%00",
        "/items/red/images/..%2F..%2Fred.png",
        "/items/'%20OR%201=1--",
        "/items/%22%5D%7D",
        "/app.js%00",
        "/..%2f..%2fetc/passwd",
        "/index.html",
        "/web/index.html",
        "//etc/passwd",
        "/items/" + "a" * 5000,
        "/items/%",
        "/items/%zz",
        "/items/",
        "/items//images/0",
        "/docs",
        "/redoc",
    ],
)
def test_unknown_and_malformed_paths_are_refused(client, address):
    assert refused(client.get(address))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_as_bulk_lines_are_answered(client, data):
    answer = client.post("/items", content=data, headers=LINES)
    assert answer.status_code == 200
    lines = [line for line in data.split(b"\n") if line.strip()]
    assert [json.loads(one)["status"] < 500 for one in answer.text.splitlines()] == [True] * min(len(lines), 51)


def test_paths_and_urls_in_a_request_are_never_opened(client, monkeypatch):
    """Nothing in a request is opened as a file, or fetched."""

    def opened(*_args, **_options):
        raise AssertionError("something was opened")

    monkeypatch.setattr("retrieval.images.sources._open_regular", opened)
    for text in ("/etc/passwd", "file:///etc/passwd", "http://localhost/"):
        assert client.post("/search", json={"text": text}).status_code == 200
        assert refused(client.post("/search", json={"image": text}))
        assert refused(client.post("/search", json={"image": base64.b64encode(text.encode()).decode()}))
        assert refused(client.post("/search", json={"like": text}))


@pytest.mark.parametrize(("data", "said"), [(b"", "The image is empty"), (b"abc", "The image is not an image")])
def test_an_invalid_query_image_is_explained_in_a_sentence(client, data, said):
    answer = client.post("/search", json={"image": to_base64(data)})
    assert refused(answer)
    assert answer.json()["error"].startswith(said)


def test_the_weight_of_words_applies_over_http(client):
    hits = {
        weight: client.post("/search", json={"text": "red", "weights": {"words": weight}}).json()["hits"][0]["score"]
        for weight in (1, 2)
    }
    assert hits[2] > hits[1]
    assert refused(client.post("/search", json={"text": "red", "mode": "vectors", "weights": {"words": 2}}))


def test_an_image_whose_file_is_missing_is_404(tmp_path):
    with make_shop(tmp_path) as catalog, serving(catalog) as client:
        (tmp_path / "red.png").unlink()
        for size in ("", "?size=120"):
            answer = client.get(f"/items/red/images/0{size}")
            assert (answer.status_code, answer.json()) == (404, {"error": "The image has no file any more."})
