"""The service's routes: results, access, settings and errors."""

import errno
import json
import re
import sqlite3
from io import BytesIO
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from fake_encoder import DIMENSION, FakeEncoder
from PIL import Image
from serving import COLORS, KEYS, LINES, READ, WRITE, image_bytes, make_shop, send_lines, serving, to_base64, wait_until
from starlette.routing import Route
from starlette.testclient import TestClient

from retrieval.catalog import Catalog
from retrieval.cli.managing import serve
from retrieval.errors import (
    CatalogError,
    CatalogFormatError,
    CatalogLockedError,
    EncoderError,
    ImageError,
    ItemError,
    QueryError,
    ServiceError,
)
from retrieval.images import MAX_PIXELS
from retrieval.records.database import LOCK
from retrieval.records.locks import writer_lock
from retrieval.server import Settings, make_app
from retrieval.server.auth import ApiKeys, read_key_file
from retrieval.server.errors import to_api_error
from retrieval.server.paths import item_path, parse_id
from retrieval.server.routes.page import PAGE_PATHS
from retrieval.server.thumbnails import SIZES

VECTOR = [1.0] * DIMENSION


@pytest.fixture
def shop(tmp_path):
    with make_shop(tmp_path) as catalog:
        yield catalog


@pytest.fixture
def client(shop):
    with serving(shop) as client:
        yield client


@pytest.fixture
def client_with_keys(shop):
    with serving(shop, KEYS) as client:
        yield client


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory):
    """Yield a client of one shop for the tests that do not change it."""
    with make_shop(tmp_path_factory.mktemp("steady")) as catalog, serving(catalog) as client:
        yield client


def hit_ids(answer):
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return answer.json()["error"]


# --- search


def test_search_over_http_equals_catalog_search(client, shop):
    answer = client.post("/search", json={"text": "something blue", "k": 3})
    hits = shop.search("something blue", k=3)
    assert [(hit["id"], hit["score"], hit["rank"]) for hit in answer.json()["hits"]] == [
        (hit.id, hit.score, hit.rank) for hit in hits
    ]
    first = answer.json()["hits"][0]
    assert (first["caption"], first["attributes"]) == ("a blue square", {"price": 20, "color": "BLUE"})
    assert (first["image"], first["thumbnail"]) == ("/items/blue/images/0", "/items/blue/images/0?size=240")
    assert answer.json().keys() == {"hits", "total", "facets", "seconds"}


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ({"image": to_base64(image_bytes("green")), "target": "images"}, "green"),
        ({"like": "white", "where": {"color": "BLACK"}}, "black"),
        ({"text": "white", "minus": "blue", "weights": {"minus": 0.5}, "mode": "vectors"}, "white"),
        ({"vector": VECTOR, "where": {"price": {"$gte": 40}}}, "black"),
        ({"vector": VECTOR, "where": {"color": {"$contains": "LAC"}}}, "black"),
    ],
)
def test_search_by_image_item_mix_and_vector(shared_client, query, first):
    assert hit_ids(shared_client.post("/search", json=query))[0] == first


def test_search_with_an_uploaded_image_alone_and_with_a_request(shared_client):
    files = {"image": ("whatever.txt", image_bytes("blue"), "text/plain")}
    assert hit_ids(shared_client.post("/search", files=files, data={"request": '{"target": "images"}'}))[0] == "blue"
    request = json.dumps({"target": "images", "k": 1, "where": {"color": {"$ne": "BLUE"}}})
    assert len(hit_ids(shared_client.post("/search", files=files, data={"request": request}))) == 1
    both = json.dumps({"image": to_base64(image_bytes("red"))})
    assert "two images" in error_of(shared_client.post("/search", files=files, data={"request": both}), 422)
    assert "parts besides" in error_of(shared_client.post("/search", files={"file": ("a", b"a")}), 422)
    assert "SVG" in error_of(shared_client.post("/search", files={"image": ("a.png", b"<svg></svg>")}), 422)


def test_query_image_is_decoded_and_shrunk_before_the_search_is_queued(client, shop, monkeypatch):
    waiting, searches = [], client.app.state.service.batcher
    submit = searches.submit
    monkeypatch.setattr(searches, "submit", lambda request: waiting.append(request) or submit(request))
    large = image_bytes("blue", size=(3000, 2000))
    answer = client.post("/search", json={"image": to_base64(large), "target": "images"})
    assert [part.value.size for part in waiting[0].query.parts] == [(19, 13)]
    same = [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in shop.search(image=large, target="images")]
    assert [(hit["id"], hit["score"]) for hit in answer.json()["hits"]] == same


def test_offset_plus_k_is_limited_by_the_service(shop):
    with serving(shop, Settings(max_results=20, batch_size=1)) as client:
        assert hit_ids(client.post("/search", json={"text": "red", "k": 20}))
        assert "limit of 20" in error_of(client.post("/search", json={"text": "red", "k": 15, "offset": 6}), 422)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"text": "red", "k": 0}, "k"),
        ({"text": "red", "k": "5"}, "k"),
        ({"text": 5}, "text"),
        ({"text": "red", "path": "/etc/passwd"}, "path"),
        ({"image": "/etc/passwd.png!"}, "base64"),
        ({"image": "http://example.com/a.png"}, "base64"),
        ({"image": to_base64(b"not a picture")}, "not an image"),
        ({"text": "red", "where": {"price": {"$less": 5}}}, "$less"),
        ({"text": "red", "where": {"a' OR 1=1 --": {"$in": "x"}}}, "list"),
        ({"like": "nobody"}, "nobody"),
        ({"vector": [0.0] * DIMENSION}, "zero"),
        ({"vector": [1.0, 2.0]}, "dimension"),
        ({"text": "red", "weights": {"image": 1.0}}, "weight"),
        ([], "body"),
    ],
)
def test_invalid_search_is_refused_with_the_reason(shared_client, query, word):
    assert word in error_of(shared_client.post("/search", json=query), 422)


# --- items

ODD = ["a/b", "a/images/0", "x y", "ü→漢", "100%", "%2F", "?a=b#c", "a\tb", "..hidden", "+", "a\\b", "é" * 200, "ITEMS"]


@pytest.mark.parametrize("name", ODD)
def test_an_id_may_be_any_text(shared_client, name):
    address = f"/items/{quote(name, safe='')}"
    answer = shared_client.put(address, json={"images": [{"vector": VECTOR}], "attributes": {"é": [1, None, "x"]}})
    assert (answer.status_code, answer.headers["location"]) == (201, address)
    item = shared_client.get(address).json()
    assert (item["id"], item["attributes"]) == (name, {"é": [1, None, "x"]})
    assert item["images"] == [{"image": None, "thumbnail": None}]
    assert shared_client.delete(address).json() == {"id": name, "status": 200}
    assert shared_client.get(address).status_code == 404
    assert parse_id(item_path(name).removeprefix("/items/")) == name


@pytest.mark.parametrize("segment", ["%FF", "%00", "a%00b", "%20", "nobody", "%ED%A0%80"])
def test_an_impossible_id_is_not_found(shared_client, segment):
    assert "no" in error_of(shared_client.get(f"/items/{segment}"), 404)


def test_items_are_listed_page_by_page(shared_client):
    whole = shared_client.get("/items").json()
    assert whole == {"items": [shared_client.get(f"/items/{name}").json() for name in sorted(COLORS)], "next": None}
    first = shared_client.get("/items", params={"limit": 3}).json()
    assert (first["items"], first["next"]) == (whole["items"][:3], "green")
    rest = shared_client.get("/items", params={"limit": 2, "after": first["next"]}).json()
    assert rest == {"items": whole["items"][3:], "next": None}
    assert shared_client.get("/items", params={"after": "zzz"}).json() == {"items": [], "next": None}


@pytest.mark.parametrize("given", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": ""}])
def test_invalid_page_parameters_are_named(shared_client, given):
    assert next(iter(given)) in error_of(shared_client.get("/items", params=given), 422)


def test_serving_and_searching_an_empty_catalog_does_not_fix_its_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", lambda *_, **__: FakeEncoder())
    with Catalog.open(tmp_path / "c", create=True) as catalog, serving(catalog) as client:
        assert client.post("/search", json={"text": "red"}).json()["hits"] == []
        assert client.put("/items/a", json={"images": [{"vector": [1, 0]}]}).status_code == 201
        assert client.post("/search", json={"vector": [1, 0]}).json()["hits"][0]["id"] == "a"
        assert (catalog.info()["encoder"], catalog.dimension) == (None, 2)


def test_put_creates_and_replaces_and_delete_removes_an_item(client):
    one = {"images": [{"vector": VECTOR}], "captions": ["one"], "caption_vectors": [VECTOR]}
    assert client.put("/items/a", json=one).status_code == 201
    assert client.put("/items/a", json=one).status_code == 200
    assert client.put("/items/a", json={"id": "a", "images": [{"vector": VECTOR}]}).status_code == 200
    assert client.get("/items/a").json()["captions"] == []
    assert "its body 'b'" in error_of(client.put("/items/a", json={"id": "b", "images": [{"vector": VECTOR}]}), 422)
    assert client.delete("/items/a").status_code == 200
    assert "no item 'a'" in error_of(client.delete("/items/a"), 404)


def test_an_uploaded_image_is_found_and_served_as_it_was_sent(client, shop, tmp_path):
    data = image_bytes("orange", size=(40, 20), form="JPEG")
    assert (
        client.put("/items/photo", json={"images": [{"data": to_base64(data)}], "captions": ["night"]}).status_code
        == 201
    )
    assert hit_ids(client.post("/search", json={"image": to_base64(data), "target": "images"}))[0] == "photo"
    assert client.get("/items/photo/images/0").content == data
    assert client.get("/items/photo/images/0").headers["content-type"] == "image/jpeg"
    client.put("/items/photo", json={"images": [{"data": to_base64(image_bytes("white"))}]})
    assert client.get("/items/photo/images/0").content == image_bytes("white")
    assert str(tmp_path) not in client.get("/items/photo").text
    assert not shop.get(["photo"])["photo"]["images"][0].startswith(str(tmp_path / "photo"))


def test_a_patch_merges_attributes_and_replaces_lists(client):
    def patched(change, **options):
        answer = client.patch("/items/red", json=change, **options)
        assert answer.json() == {"id": "red", "status": 200}
        return client.get("/items/red").json()

    item = patched({"attributes": {"color": None, "price": 7, "more": {"a": 1}}})
    assert (item["attributes"], item["captions"]) == ({"price": 7, "more": {"a": 1}}, ["a red square"])
    merge = {"Content-Type": "application/merge-patch+json"}
    item = patched({"attributes": {"more": {"a": None, "b": 2}}, "captions": ["new", "words"]}, headers=merge)
    assert (item["attributes"], item["captions"]) == ({"price": 7, "more": {"b": 2}}, ["new", "words"])
    assert patched({"captions": []})["captions"] == []
    patched({"images": [{"data": to_base64(image_bytes("blue"))}]})
    assert client.get("/items/red/images/0").content == image_bytes("blue")
    assert patched({}) == client.get("/items/red").json()
    assert "no item" in error_of(client.patch("/items/nobody", json={"attributes": {"a": 1}}), 404)
    for wrong in (
        {"images": []},
        {"images": [{"vector": VECTOR}]},
        {"captions": None},
        {"id": "red"},
        {"attributes": 1},
    ):
        assert error_of(client.patch("/items/red", json=wrong), 422)
    assert client.get("/items/red").json()["attributes"] == {"price": 7, "more": {"b": 2}}


def test_paging_facets_sorting_groups_floors_and_boosts_over_http(client, shop):
    query = {
        "where": {"price": {"$gte": 10}},
        "sort": ["-price"],
        "k": 2,
        "offset": 1,
        "facets": {"color": 2, "price": [[None, 20], [20, None]]},
    }
    answer = client.post("/search", json=query).json()
    assert [(hit["id"], hit["rank"]) for hit in answer["hits"]] == [("white", 2), ("blue", 3)]
    assert answer["total"] == 4
    color, price = answer["facets"]["color"], answer["facets"]["price"]
    assert color["values"] == [{"value": "BLACK", "count": 1}, {"value": "BLUE", "count": 1}]
    assert (color["other"], color["missing"]) == (2, 0)
    assert price["ranges"] == [{"from": None, "to": 20, "count": 1}, {"from": 20, "to": None, "count": 3}]
    assert (price["min"], price["max"]) == (10, 40)
    send_lines(client, [{"patch": {"id": name, "attributes": {"model": "m"}}} for name in ("red", "blue", "black")])
    query = {"text": "blue", "mode": "vectors", "group": "model", "boosts": [{"attribute": "price", "weight": 0.5}]}
    hits = shop.search(query.pop("text"), **query)
    answer = client.post("/search", json={"text": "blue", **query}).json()
    assert [(hit["id"], hit["score"], hit["variants"]) for hit in answer["hits"]] == [
        (hit.id, hit.score, hit.variants) for hit in hits
    ]
    assert answer["hits"][0]["variants"] == 3
    floored = client.post("/search", json={"text": "blue", "mode": "vectors", "floor": 0.9}).json()
    assert ([hit["id"] for hit in floored["hits"]], floored["total"]) == (["blue"], 1)
    assert client.post("/search", json={}).json()["total"] == 5


def test_text_in_a_mix_is_not_searched_by_words(client):
    """A text alone names what to find; beside an image it says how the image is to be modified."""
    alone = client.post("/search", json={"text": "blue", "weights": {"words": 2.0}}).json()["hits"]
    assert all("vectors" in hit["ranks"] for hit in alone)
    for seen in ({"like": "red"}, {"image": to_base64(image_bytes("red"))}, {"vector": VECTOR}):
        hits = client.post("/search", json={"text": "blue", "target": "images", **seen}).json()["hits"]
        assert not any("ranks" in hit for hit in hits)


def test_date_facets_are_counted_in_ranges(client):
    days = {"red": "2026-01-31", "blue": "2026-02-01", "black": "2025-12-24"}
    send_lines(client, [{"patch": {"id": name, "attributes": {"day": day}}} for name, day in days.items()])
    answer = client.post("/search", json={"facets": {"day": [["2026-01-01", "2026-02-01"], ["2026-02-01", None]]}})
    assert [one["count"] for one in answer.json()["facets"]["day"]["ranges"]] == [1, 1]


@pytest.mark.parametrize(
    ("item", "word"),
    [
        ({"images": []}, "images"),
        ({"images": ["/etc/passwd"]}, "images.0"),
        ({"images": [{"path": "/etc/passwd"}]}, "images.0.path"),
        ({"images": [{"url": "http://localhost/"}]}, "images.0.url"),
        ({"images": [{"data": "file:///etc/passwd"}]}, "base64"),
        ({"images": [{}]}, "data, or a vector"),
        ({"images": [{"vector": VECTOR}, {"data": to_base64(image_bytes())}]}, "either all images"),
        ({"images": [{"data": to_base64(b"no picture")}]}, "Image 0 is not an image"),
        ({"images": [{"data": to_base64(image_bytes()[:100])}]}, "breaks off"),
        ({"images": [{"vector": [1.0, 2.0]}]}, "dimension"),
        ({"images": [{"vector": VECTOR}], "image_vectors": [[1.0]]}, "image_vectors"),
        ({"images": [{"vector": VECTOR}], "captions": ["a", "b"], "caption_vectors": [VECTOR]}, "2 captions have 1"),
        ({"images": [{"vector": [0.0] * DIMENSION}]}, "all zeros"),
    ],
)
def test_invalid_item_is_refused_with_the_reason(shared_client, item, word):
    assert word in error_of(shared_client.put("/items/a", json=item), 422)
    assert shared_client.get("/items/a").status_code == 404


def test_other_media_types_are_refused_with_415(shared_client):
    for ask in (shared_client.post, shared_client.put, shared_client.patch):
        address = "/search" if ask == shared_client.post else "/items/a"
        assert "Content-Type" in error_of(ask(address, content="{}", headers={"Content-Type": "text/plain"}), 415)
        assert "Content-Type" in error_of(ask(address, content="{}"), 415)
    assert error_of(shared_client.post("/items", content="{}", headers={"Content-Type": "application/json"}), 415)


# --- bulk requests


def test_every_line_of_a_bulk_request_has_its_own_result(client):
    vector = {"images": [{"vector": VECTOR}]}
    answers = send_lines(
        client,
        [
            {"put": {"id": "a", **vector}},
            {"put": {"id": "b", "images": [{"vector": [1.0]}]}},
            {"put": {"id": "c", **vector}},
            {"put": {"id": "a", **vector, "captions": ["again"], "caption_vectors": [VECTOR]}},
            {"delete": "c"},
            {"delete": "c"},
            {"put": {"id": "d", **vector}, "delete": "d"},
            {"put": vector},
            {"rename": "a"},
            {"patch": {"id": "a", "attributes": {"n": 1}}},
            {"patch": {"id": "a", "attributes": {"m": 2}}},
            {"patch": {"id": "nobody", "attributes": {"m": 2}}},
        ],
    )
    assert [(answer["line"], answer["id"], answer["status"]) for answer in answers] == [
        (1, "a", 201),
        (2, "b", 422),
        (3, "c", 201),
        (4, "a", 200),
        (5, "c", 200),
        (6, "c", 404),
        (7, None, 422),
        (8, None, 422),
        (9, None, 422),
        (10, "a", 200),
        (11, "a", 200),
        (12, "nobody", 404),
    ]
    assert client.get("/items/a").json()["attributes"] == {"n": 1, "m": 2}
    assert [("error" in answer) for answer in answers] == [answer["status"] > 300 for answer in answers]
    assert client.get("/items/a").json()["captions"] == ["again"]


def test_malformed_lines_do_not_fail_the_others(shop):
    with serving(shop, Settings(max_body=1000, batch_size=1)) as client:
        good = json.dumps({"delete": "red"})
        lines = [b"{", b"", b"\xff\xfe", b"x" * 5000, b'"' + b"[" * 900, b"NaN", good.encode(), b"   \r", b'{"delete":']
        answer = client.post("/items", content=b"\r\n".join(lines), headers=LINES)
        statuses = {line["line"]: line["status"] for line in map(json.loads, answer.text.splitlines())}
        assert statuses == {1: 400, 3: 400, 4: 413, 5: 400, 6: 400, 7: 200, 9: 400}


def test_bulk_lines_get_503_each_when_the_read_queue_is_full(client):
    service = client.app.state.service
    service.read_executor.pending += service.settings.queue
    answers = send_lines(client, [{"delete": "red"}, {"delete": "blue"}])
    service.read_executor.pending -= service.settings.queue
    assert [(one["line"], one["status"]) for one in answers] == [(1, 503), (2, 503)]
    assert client.get("/items/red").status_code == 200


def test_a_bulk_request_over_max_lines_is_answered_up_to_the_limit(shop):
    with serving(shop, Settings(max_lines=3, batch_size=1)) as client:
        answers = send_lines(client, [{"delete": color} for color in COLORS])
        assert [answer["status"] for answer in answers] == [200, 200, 200, 413]
        assert len(shop) == 2


def test_bulk_lines_are_committed_in_batches(client, shop, monkeypatch):
    calls = []
    upsert = type(shop).upsert
    monkeypatch.setattr(type(shop), "upsert", lambda self, items: calls.append(len(items)) or upsert(self, items))
    answers = send_lines(
        client, [{"put": {"id": str(number), "images": [{"vector": VECTOR}]}} for number in range(150)]
    )
    assert [answer["status"] for answer in answers] == [201] * 150
    assert sum(calls) == 150
    assert len(calls) == 3
    assert len(shop) == 155


# --- images


@pytest.mark.parametrize("size", SIZES)
def test_a_thumbnail_is_a_webp_of_the_requested_size(shared_client, size):
    answer = shared_client.get(f"/items/red/images/0?size={size}")
    assert answer.headers["content-type"] == "image/webp"
    small = Image.open(BytesIO(answer.content))
    assert (small.format, max(small.size)) == ("WEBP", min(size, 300))
    assert all(abs(a - b) < 8 for a, b in zip(small.convert("RGB").getpixel((5, 5)), (255, 0, 0), strict=True))


def test_an_image_is_served_unchanged_and_304_to_a_client_with_its_etag(client, tmp_path):
    answer = client.get("/items/red/images/0")
    assert answer.content == (tmp_path / "red.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for address in ("/items/red/images/0", "/items/red/images/0?size=120"):
        tag = client.get(address).headers["etag"]
        for held in (tag, f'"other", W/{tag}', "*"):
            again = client.get(address, headers={"If-None-Match": held})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/items/red/images/1", 404),
        ("/items/nobody/images/0", 404),
        ("/items/red/images/-1", 422),
        ("/items/red/images/x", 422),
        ("/items/red/images/0?size=241", 422),
        ("/items/red/images/0?size=99999999999999999999", 422),
        ("/items/red/images/0/../../../etc/passwd", 404),
        ("/items/red/images/99999999999999999999999", 422),
        ("/../../etc/passwd", 404),
        ("/app.js/../index.html", 404),
    ],
)
def test_no_path_reaches_other_files_than_images_of_items(shared_client, address, status):
    assert error_of(shared_client.get(address), status)


def test_a_file_that_became_html_or_is_missing_is_404(client, tmp_path):
    (tmp_path / "red.png").write_bytes(b"<html><script>alert(1)</script></html>")
    assert "HTML" in error_of(client.get("/items/red/images/0"), 404)
    assert "HTML" in error_of(client.get("/items/red/images/0?size=120"), 404)
    (tmp_path / "red.png").unlink()
    assert "no file any more" in error_of(client.get("/items/red/images/0"), 404)


def test_thumbnail_cache_is_bounded_in_bytes_and_evicts_the_least_recently_used(shop):
    with serving(shop, Settings(batch_size=1)) as client:
        sizes = [len(client.get(f"/items/{name}/images/0?size=480").content) for name in ("red", "green", "blue")]
    with serving(shop, Settings(batch_size=1, thumbnail_cache=sum(sizes) - 1)) as client:
        cache = client.app.state.service.thumbnails
        for name in ("red", "green", "red", "blue", "red"):
            client.get(f"/items/{name}/images/0?size=480")
            assert 0 < cache.currsize <= cache.maxsize
        assert 'retrieval_thumbnails_total{how="made"} 3.0' in client.get("/metrics").text
    with serving(shop, Settings(batch_size=1, thumbnail_cache=1)) as client:
        assert client.get("/items/red/images/0?size=480").status_code == 200
        assert not client.app.state.service.thumbnails


def test_a_thumbnail_is_made_once_and_then_cached(client):
    for _ in range(3):
        client.get("/items/blue/images/0?size=480")
    figures = client.get("/metrics").text
    assert 'retrieval_thumbnails_total{how="made"} 1.0' in figures
    assert 'retrieval_thumbnails_total{how="kept"} 2.0' in figures


# --- access

OPEN = {"/health", "/ready", "/openapi.json", *PAGE_PATHS}
WRITES = {("PUT", "/items/{id}"), ("PATCH", "/items/{id}"), ("DELETE", "/items/{id}"), ("POST", "/items")}


def routes(client):
    for route in client.app.routes:
        assert isinstance(route, Route)
        for method in route.methods - {"HEAD"}:
            yield method, route.path


def test_every_route_requires_a_key_of_the_right_scope(client_with_keys):
    asked = set()
    for method, path in routes(client_with_keys):
        address = path.replace("{id}", "red").replace("{position}", "0")
        asked.add((method, path))
        for headers, refused in ((None, 401), ({"X-API-Key": "no such key"}, 401), (READ, 403)):
            status = client_with_keys.request(method, address, headers=headers).status_code
            if path in OPEN:
                assert status in {200, 404}
            elif headers is not READ or (method, path) in WRITES:
                assert status == refused, (method, path)
            else:
                assert status not in {401, 403}, (method, path)
        assert client_with_keys.request(method, address, headers=WRITE).status_code not in {401, 403}
    assert asked > WRITES


def test_a_key_is_accepted_in_either_header_and_unknown_ones_get_401(client_with_keys):
    query = {"json": {"text": "red"}}
    assert hit_ids(client_with_keys.post("/search", headers={"X-API-Key": KEYS.read_keys[0]}, **query))
    for headers in (
        {"Authorization": f"Basic {KEYS.read_keys[0]}"},
        {"Authorization": "Bearer"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"X-API-Key": ""},
        {"X-API-Key": KEYS.read_keys[0][:-1]},
    ):
        answer = client_with_keys.post("/search", headers=headers, **query)
        assert "key" in error_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_keys_have_scopes_and_no_repr_shows_them():
    keys = ApiKeys(KEYS)
    assert [keys.find_scope(key) for key in (*KEYS.read_keys, *KEYS.write_keys, "", "x" * 30)] == [
        "read",
        "write",
        None,
        None,
    ]
    assert not re.search("a-key-that", repr(KEYS) + repr(vars(keys)))


def test_key_file_is_parsed(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nread aaaaaaaaaaaaaaaaaaaa # the shop\n\nwrite bbbbbbbbbbbbbbbbbbbb\n")
    assert read_key_file(path) == {"read": ("aaaaaaaaaaaaaaaaaaaa",), "write": ("bbbbbbbbbbbbbbbbbbbb",)}
    path.write_text("aaaaaaaaaaaaaaaaaaaa\n")
    with pytest.raises(ServiceError, match="line 1: write `read KEY`"):
        read_key_file(path)
    with pytest.raises(ServiceError, match="cannot be read"):
        read_key_file(tmp_path / "none")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a@b"]
)
def test_without_keys_other_host_names_are_refused(shared_client, host):
    assert "localhost" in error_of(shared_client.get("/health", headers={"Host": host}), 421)


def test_without_keys_local_host_names_are_accepted(shared_client):
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert shared_client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "file://"])
def test_without_keys_pages_of_other_origins_can_neither_change_nor_search(client, shop, origin):
    for method, address in (("POST", "/search"), ("POST", "/items"), ("DELETE", "/items/red"), ("PUT", "/items/red")):
        assert "other origins" in error_of(client.request(method, address, json={}, headers={"Origin": origin}), 403)
    assert len(shop) == 5
    answer = client.get("/items/red", headers={"Origin": origin})
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_same_origin_page_may_search(shared_client):
    assert hit_ids(shared_client.post("/search", json={"text": "red"}, headers={"Origin": "http://localhost"}))


def test_a_page_of_an_allowed_cors_origin_may_search(shop):
    origin = {"Origin": "https://shop.example"}
    with serving(shop, Settings(cors_origins=("https://shop.example",), batch_size=1)) as client:
        assert hit_ids(client.post("/search", json={"text": "red"}, headers=origin))
        asked = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        answer = client.options("/search", headers=asked)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://shop.example")
        wrong = client.post("/search", json={"k": 0}, headers=origin)
        assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (422, "https://shop.example")
        assert client.post("/search", json={}, headers={"Origin": "https://other.example"}).status_code == 403


# --- settings


def serve_with(monkeypatch, path, *options, environment=None):
    """Run `retrieval serve` up to the application: its exit code, stderr, and the settings."""
    settings = []
    monkeypatch.setattr("retrieval.server.make_app", lambda _catalog, given: settings.append(given))
    monkeypatch.setattr("retrieval.server.uvicorn_server.serve", lambda _app, **_: None)
    result = CliRunner().invoke(serve, [str(path), *options], env=environment or {})
    return result.exit_code, result.stderr, settings[0] if settings else None


@pytest.mark.parametrize(
    ("options", "environment", "word"),
    [
        (["--host", "192.0.2.1"], {}, "no keys"),
        (["--host", "::"], {}, "no keys"),
        (["--host", "example.com"], {}, "no keys"),
        ([], {"RETRIEVAL_HOST": "10.0.0.1"}, "no keys"),
        ([], {"RETRIEVAL_PORT": "many"}, "--port"),
        ([], {"RETRIEVAL_READ_ONLY": "maybe"}, "--read-only"),
        ([], {"RETRIEVAL_READ_KEYS": "short"}, "16"),
        (["--queue", "0"], {}, "--queue"),
        (["--timeout", "0"], {}, "--timeout"),
        (["--port", "70000"], {}, "65535"),
        (["--cors-origin", "*"], {}, "Invalid origin"),
        (["--cors-origin", "https://a.example/"], {}, "Invalid origin"),
    ],
)
def test_invalid_options_and_variables_are_usage_errors(monkeypatch, tmp_path, options, environment, word):
    code, error, settings = serve_with(monkeypatch, tmp_path / "c", *options, environment=environment)
    assert (code, settings) == (2, None)
    assert word in error


@pytest.mark.parametrize("invalid", [{"port": 70_000}, {"queue": 0}, {"timeout": 0.0}, {"max_body": 1.5}])
def test_settings_in_python_have_the_same_ranges_as_options(invalid):
    with pytest.raises(ServiceError, match=f"Invalid value for {next(iter(invalid))}"):
        Settings(**invalid)


def test_an_option_overrides_its_variable(monkeypatch, tmp_path, shop):
    shop.close()
    environment = {
        "RETRIEVAL_PORT": "1",
        "RETRIEVAL_TIMEOUT": "2.5",
        "RETRIEVAL_READ_KEYS": "aaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbb",
        "RETRIEVAL_READ_ONLY": "1",
        "RETRIEVAL_QUEUE": "",
        "RETRIEVAL_CORS_ORIGINS": "https://a.example,https://b.example",
    }
    options = ["--port", "2", "--host", "192.0.2.1"]
    code, error, settings = serve_with(monkeypatch, tmp_path / "c", *options, environment=environment)
    assert (code, error) == (0, "")
    assert (settings.port, settings.timeout, settings.read_only, settings.queue) == (2, 2.5, True, 256)
    assert settings.read_keys == ("a" * 16, "b" * 16)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.max_pixels == MAX_PIXELS


def test_earlier_names_of_settings_still_work_with_a_notice(monkeypatch, tmp_path, shop):
    shop.close()
    environment = {"RETRIEVAL_SLOW": "3", "RETRIEVAL_THUMBNAILS": "1000"}
    options = ["--batch", "4", "--stop", "7"]
    code, error, settings = serve_with(monkeypatch, tmp_path / "c", *options, environment=environment)
    assert (code, settings.batch_size, settings.shutdown_timeout) == (0, 4, 7.0)
    assert (settings.client_timeout, settings.thumbnail_cache) == (3.0, 1000)
    assert "The setting batch is now called batch_size: use --batch-size." in error


# --- errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueryError("x"), 422),
        (ImageError("x"), 422),
        (CatalogError("x"), 409),
        (ItemError("x"), 422),
        (CatalogLockedError("x"), 409),
        (CatalogFormatError("x"), 503),
        (EncoderError("x"), 503),
        (TimeoutError(), 504),
        (ValueError("secret"), 500),
        (MemoryError(), 500),
    ],
)
def test_every_error_class_has_its_status(error, status):
    problem = to_api_error(error)
    assert problem.status == status
    assert "secret" not in problem.message


def test_a_full_disk_is_507_and_messages_do_not_reveal_the_folder():
    error = CatalogError("/home/me/c/catalog.sqlite: full")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    assert to_api_error(error, folder="/home/me/c").status == 507
    assert to_api_error(error, folder="/home/me/c").message == "The catalog/catalog.sqlite: full"
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert to_api_error(error).status == 507
    error.__cause__ = OSError(errno.EIO, "failing")
    assert to_api_error(error).status == 503


def test_an_unexpected_error_is_logged_and_its_text_kept_from_clients(client, shop, monkeypatch, caplog):
    def failing(*_args, **_options):
        raise KeyError("a secret")

    monkeypatch.setattr(type(shop), "search_each", failing)
    assert "secret" not in error_of(client.post("/search", json={"text": "red"}), 500)
    assert "a secret" in caplog.text


@pytest.mark.parametrize(("method", "address", "status"), [("GET", "/search", 405), ("GET", "/nothing", 404)])
def test_routing_errors_have_the_form_of_all_errors(shared_client, method, address, status):
    assert error_of(shared_client.request(method, address), status)


def test_while_another_process_writes_changes_get_409_and_searches_succeed(client, tmp_path):
    with writer_lock(tmp_path / "c" / LOCK):
        for answer in (
            client.put("/items/a", json={"images": [{"vector": VECTOR}]}),
            client.delete("/items/red"),
        ):
            assert "is being written by" in error_of(answer, 409)
            assert str(tmp_path) not in answer.text
            assert int(answer.headers["retry-after"]) > 0
        assert {answer["status"] for answer in send_lines(client, [{"delete": "red"}, {"delete": "blue"}])} == {409}
        assert hit_ids(client.post("/search", json={"text": "red", "mode": "vectors"}))[0] == "red"
    assert client.delete("/items/red").status_code == 200


def test_a_search_sees_changes_of_another_process(client, shop, tmp_path):
    with type(shop).open(tmp_path / "c") as other:
        other.upsert([{"id": "new", "image_vectors": [VECTOR]}])
        other.delete(["red"])
    assert hit_ids(client.post("/search", json={"vector": VECTOR}))[0] == "new"
    assert client.get("/items/red").status_code == 404


def test_a_read_only_service_refuses_changes(shop):
    with serving(shop, Settings(read_only=True, batch_size=1)) as client:
        vector = {"images": [{"vector": VECTOR}]}
        assert "read-only" in error_of(client.put("/items/a", json=vector), 403)
        assert "read-only" in error_of(client.delete("/items/red"), 403)
        assert "read-only" in error_of(client.post("/items", content="", headers=LINES), 403)
        assert hit_ids(client.post("/search", json={"text": "red"}))


# --- operations


def test_health_is_alive_before_the_service_is_ready(shop, monkeypatch):
    app = make_app(shop, Settings(batch_size=1))
    monkeypatch.setattr(app.state.service, "start", app.state.service.batcher.start)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/health").json() == {"status": "alive"}
        answer = client.get("/ready")
        assert "warm" in error_of(answer, 503)
        assert answer.headers["retry-after"] == "1"
        app.state.service.ready = True
        assert client.get("/ready").json() == {"status": "ready", "items": 5}


def test_warm_up_encodes_one_text_and_one_image(shop):
    encoder = shop.encoder
    texts, pictures = len(encoder.texts), encoder.images
    with serving(shop, Settings(batch_size=1)):
        assert (len(encoder.texts), encoder.images) == (texts + 1, pictures + 1)


def test_ready_reports_why_the_warm_up_failed(shop, monkeypatch):
    def failing(_self):
        raise EncoderError("the model is gone")

    monkeypatch.setattr("retrieval.server.catalog_api.CatalogAPI.warm_up", failing)
    with TestClient(make_app(shop), base_url="http://localhost") as client:
        wait_until_ready_says(client, "The model is gone")


def test_a_service_with_another_text_tower_than_the_catalogs_is_not_ready(shop, tmp_path):
    shop.close()
    retrained = FakeEncoder()
    retrained.text_fingerprint = "another"
    with (
        Catalog.open(tmp_path / "c", encoder=lambda: retrained) as catalog,
        TestClient(make_app(catalog), base_url="http://localhost") as client,
    ):
        wait_until_ready_says(client, "text towers text0123456789abcdef and another")


def wait_until_ready_says(client, words):
    """Wait until the error of /ready contains these words."""
    wait_until(lambda: words in error_of(client.get("/ready"), 503))


def test_a_full_read_queue_does_not_fail_the_health_checks(client):
    service = client.app.state.service
    service.read_executor.pending += service.settings.queue
    assert "Too many reads" in error_of(client.get("/items/red"), 503)
    assert client.get("/ready").json() == {"status": "ready", "items": 5}
    assert 'retrieval_waiting{what="reads"} 256.0' in client.get("/metrics").text
    service.read_executor.pending -= service.settings.queue


def test_metrics_count_requests_by_route(client):
    client.get("/items/red")
    client.get("/items/nobody")
    client.head("/items/red")
    client.get("/no/such/address")
    figures = client.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'retrieval_requests_total{method="GET",route="/items/{id}",status="200"} 1.0',
        'retrieval_requests_total{method="HEAD",route="/items/{id}",status="200"} 1.0',
        'retrieval_requests_total{method="GET",route="/items/{id}",status="404"} 1.0',
        'retrieval_requests_total{method="GET",route="other",status="404"} 1.0',
        "retrieval_ready 1.0",
        'retrieval_waiting{what="searches"} 0.0',
    ):
        assert line in figures.text


def test_openapi_describes_every_route_and_its_examples_are_valid(shared_client):
    document = shared_client.get("/openapi.json").json()
    described = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    assert described == {one for one in routes(shared_client) if one[1] not in {*PAGE_PATHS, "/openapi.json"}}
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used <= set(document["components"]["schemas"])
    for example in document["components"]["schemas"]["SearchBody"]["examples"]:
        answer = shared_client.post("/search", json={**example, "like": "red"} if "like" in example else example)
        assert answer.status_code == 200


def test_head_is_get_without_a_body_and_options_lists_methods(shared_client):
    for address in ("/items/red", "/items/red/images/0?size=120", "/health", "/"):
        head, get = shared_client.head(address), shared_client.get(address)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))
    assert shared_client.options("/items/red").headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    assert shared_client.options("/search").headers["allow"] == "OPTIONS, POST"
    assert error_of(shared_client.options("/nothing"), 404)


def test_the_page_contains_the_limit_of_results(shop, shared_client):
    with serving(shop, Settings(max_results=77, batch_size=1)) as client:
        assert 'data-most="77"' in client.get("/").text
        assert client.get("/").headers["etag"] != shared_client.get("/").headers["etag"]
    assert 'data-most="1000"' in shared_client.get("/").text


def test_the_page_has_an_etag_and_a_policy_for_own_scripts_only(shared_client):
    answer = shared_client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert shared_client.get("/", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert shared_client.get("/health").headers["content-security-policy"].startswith("default-src 'none'")
