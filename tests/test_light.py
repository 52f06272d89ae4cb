"""The whole way without an extra but that of serving: the starter builds, searches, evaluates and serves.

The packages of the extras are hidden from the program, so that this holds in every environment.
"""

import json

import pytest
from test_extras import run_without_extras

from retrieval.demo.sample_shop import draw_shop

COMMANDS = {
    "build": "build shop/products.csv c --device cpu",
    "text": "search c umbrella -k 1 --json --vectors",
    "hybrid": "search c gray$umbrella -k 1 --json",
    "words": "search c umbrella -k 1 --json --words",
    "picture": "search c --image shop/images/p0003.png --images -k 1 --json",
    "captions": "search c --image shop/images/p0001.png -k 1 --json",
    "like": "search c --like p0005 -k 3 --json",
    "again": "build shop/products.csv c",
    "evaluate": "evaluate shop/products.csv --json --resamples 0 --device cpu",
    "index": "build shop/products.csv c --index hnsw",
    "model": "info starter --json",
    "delete": "delete c p0011",
    "gone": "search c umbrella --json",
    "info": "info c --json",
    "export": "export c --vectors",
    "torch": "search c umbrella --engine torch",
}
PROGRAM = f"""
from retrieval.cli import main
for name, line in {COMMANDS!r}.items():
    sys.argv = ["retrieval", *(word.replace("$", " ") for word in line.split())]
    for stream in (sys.stdout, sys.stderr):
        print("##", name, file=stream, flush=True)
    try:
        main()
    except SystemExit as end:
        print(end.code, file=sys.stderr)

del sys.modules["fastapi"]  # serving has its extra
from retrieval import Catalog
from retrieval.server import make_app
from starlette.testclient import TestClient
print("## http")
with Catalog.open("c") as catalog, TestClient(make_app(catalog), base_url="http://localhost") as client:
    print(client.post("/search", json={{"text": "yellow teapot", "k": 1}}).text)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each command printed: the lines on stdout, and those on stderr, whose last is the exit code."""
    folder = tmp_path_factory.mktemp("light")
    draw_shop(folder / "shop", count=24)
    errors, lines = run_without_extras(PROGRAM, folder)
    parts = [
        {part.split("\n")[0]: part.split("\n")[1:-1] for part in "\n".join([*each, ""]).split("## ")[1:]}
        for each in (lines, errors)
    ]
    return parts[0], parts[1]


def hits(printed, name):
    assert printed[1][name][-1] == "0", printed[1][name]
    return [json.loads(line) for line in printed[0][name]]


def test_build_adds_all_and_the_next_finds_nothing_to_do(printed):
    assert printed[0]["build"] == ["added 24, changed 0, dropped 0, unchanged 0"]
    assert printed[0]["again"] == ["added 0, changed 0, dropped 0, unchanged 24"]


@pytest.mark.parametrize("name", ["text", "hybrid", "words"])
def test_a_text_finds_its_picture(printed, name):
    (hit,) = hits(printed, name)
    assert (hit["id"], hit["attributes"]["kind"]) == ("p0011", "umbrella")


def test_a_picture_finds_itself_and_its_captions(printed):
    (hit,) = hits(printed, "picture")
    assert (hit["id"], round(hit["score"], 4)) == ("p0003", 1)
    assert [hit["id"] for hit in hits(printed, "captions")] == ["p0001"]


def test_items_are_found_by_an_item(printed):
    found = [hit["id"] for hit in hits(printed, "like")]
    assert (len(found), "p0005" in found) == (3, False)


def test_recall_is_measured_both_ways(printed):
    (report,) = hits(printed, "evaluate")
    assert report["metrics"]["text_to_image_recall@10"] > 0.6
    assert report["metrics"]["image_to_text_recall@10"] > 0.6


def test_a_deleted_item_is_gone_and_the_others_are_exported_with_their_vectors(printed):
    assert printed[0]["delete"] == ["deleted 1, not there 0"]
    assert "p0011" not in [hit["id"] for hit in hits(printed, "gone")]
    items = hits(printed, "export")
    assert len(items) == 23
    assert {len(vector) for item in items for vector in item["image_vectors"]} == {512}


def test_info_tells_of_the_catalog_and_of_the_model(printed):
    (catalog,), (model,) = hits(printed, "info"), hits(printed, "model")
    assert (catalog["items"], catalog["deleted"], catalog["encoder"]) == (23, 1, "starter")
    assert catalog["index"].startswith("images: exact (reading all 24 rows of dimension 512 takes milliseconds")
    assert model["text_fingerprint"] == catalog["text_fingerprint"]


def test_http_finds_a_picture_by_text(printed):
    (answer,) = printed[0]["http"]
    assert json.loads(answer)["hits"][0]["id"] == "p0017"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("index", "An index of kind hnsw cannot be built here: FAISS is not installed. Run pip install '{}[cpu]'"),
        ("torch", "The engine torch needs the package torch, which a plain installation no longer brings. "),
    ],
)
def test_what_needs_an_extra_is_one_line_and_exit_code_1(printed, name, line):
    error, code = printed[1][name]
    assert line.format("crossmodal-retrieval") in error
    assert code == "1"
