"""The README's section "A shop in five minutes", run as written, on a feed such as shops export."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from retrieval.demo.sample_shop import draw_shop
from retrieval.pairs import read_pairs

README = Path(__file__).parents[1] / "README.md"
PORT = "localhost:8000"
SHOP = "https://shop.example"
COLUMNS = ("id", "title", "description", "link", "image_link", "price", "availability", "color", "item_group_id")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the README's requests are curl's")


def blocks(language):
    section = README.read_text(encoding="utf-8").split("## A shop in five minutes\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def commands(block):
    """The commands of a block, without comments; an indented line continues its command."""
    lines = [line for line in block.splitlines() if line and not line.startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


run = partial(subprocess.run, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Google Merchant feed of 120 drawn products with image URLs, and a row without an image."""
    folder = tmp_path_factory.mktemp("five")
    drawn = list(read_pairs(draw_shop(folder / "drawn", count=120)))
    (folder / "images").mkdir()
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for pair in drawn:
            shutil.copy(pair.image.path, folder / "images" / f"{pair.id}.png")
            title, description, facts = pair.captions[0], pair.captions[1], pair.attributes
            address = f"{SHOP}/pictures/{pair.id}.png?width=800"
            price, stock = f"{facts['price']:.2f} EUR", "in_stock" if facts["stock"] else "out_of_stock"
            shared = (facts["color"], facts["kind"])
            writer.writerow([pair.id, title, description, SHOP, address, price, stock, *shared])
        writer.writerow(["p9999", "Gone", "No picture", SHOP, f"{SHOP}/gone.png", "1 EUR", "", "", ""])
    return folder


@pytest.fixture(scope="module")
def service(folder):
    """Build and serve with the commands of the first block, on a free port."""
    build, serve = commands(blocks("sh")[0])
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    built = run(["bash", "-c", build], cwd=folder, env=environment)
    assert built.returncode == 0, built.stderr
    assert "added 120" in built.stdout
    assert "p9999" in (folder / "refused.csv").read_text(encoding="utf-8")
    process = subprocess.Popen(
        ["bash", "-c", f"exec {serve} --port 0"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    line = next(line for line in process.stderr if "http://" in line)
    yield re.search(r"127\.0\.0\.1:\d+", line).group()
    process.terminate()
    assert process.wait(timeout=300) == 0
    process.stderr.close()


def test_every_request_of_the_readme_section_is_answered(folder, service):
    answers = []
    for command in commands(blocks("sh")[1]):
        done = run(["bash", "-c", command.replace(PORT, service)], cwd=folder)
        answers.append(json.loads(done.stdout))
    words, picture, mixed, alike, grouped, patched, deleted = answers
    first = words["hits"][0]
    assert "umbrella" in first["caption"].casefold()
    assert all(hit["attributes"]["price"] < 40 for hit in words["hits"])
    assert sum(value["count"] for value in words["facets"]["color"]["values"]) == words["total"]
    assert picture["hits"][0]["id"] == "p0001"
    assert len(mixed["hits"]) == 5
    assert "p0001" not in {hit["id"] for hit in alike["hits"]}
    assert [hit["rank"] for hit in grouped["hits"]] == list(range(11, 11 + len(grouped["hits"])))
    prices = [hit["attributes"]["price"] for hit in grouped["hits"]]
    assert prices == sorted(prices)
    assert len({hit["attributes"]["item_group_id"] for hit in grouped["hits"]}) == len(prices) > 0
    assert (patched["id"], deleted["id"]) == ("p0001", "p0002")
    with urlopen(f"http://{service}/items/p0001", timeout=300) as answer:
        assert json.load(answer)["attributes"]["price"] == 9.5
    with urlopen(f"http://{service}/", timeout=300) as page:
        assert b"<html" in page.read()


@pytest.mark.usefixtures("service")
def test_the_python_of_the_readme_section_runs_beside_the_service(folder):
    (code,) = blocks("python")
    done = run([sys.executable, "-c", code], cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "umbrella" in lines[0].casefold()
    assert lines[-1].endswith("),)") or "products;" in lines[-1]
