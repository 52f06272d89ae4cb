"""When does a person see hits on the page: on the first load, and after the last key of a query?

    python benchmarks/page.py --items 100000 [--screenshots FOLDER]

A catalog of items whose vectors lie around those of drawn products, whose pictures they share, served by
`retrieval serve` and looked at with Chromium on the same machine. "Seen" is the first frame that is drawn after the
hits are in the page; "with pictures" is when all pictures on the screen are there too. A first load has an empty
browser cache; a query is typed key by key, and timed from its last key and from when the page, which waits for another
key, asks. The screenshots show a smaller shop, of products that differ, at desktop and phone width, light and dark.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common import write_results
from playwright.sync_api import Browser, Page, sync_playwright
from serving import serving, vectors_near

from retrieval.catalog import Catalog
from retrieval.demo.sample_shop import COLORS, KINDS, Product, draw_shop, generate_products
from retrieval.encoder import load_encoder
from retrieval.images import open_image
from retrieval.pairs import read_pairs

SHOWN = 400  # products on the screenshots
PRODUCTS = 90  # drawn ones, whose pictures all items share
SCREENS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
KEY = 40  # milliseconds between keys: faster than the page asks
_BATCH = 5000

# Runs in the page before its own scripts, and writes down when what is seen changes.
WATCH = """
window.seen = {};
addEventListener("input", (event) => (window.seen = { typed: event.timeStamp }), true);
const there = (image) => image.complete || image.getBoundingClientRect().top > innerHeight;
const pictures = (mine) => {
  if (mine !== window.seen) return;
  if ([...document.querySelectorAll("#hits img")].every(there)) mine.pictures = performance.now();
  else requestAnimationFrame(() => pictures(mine));
};
const changed = (records) => {
  if (!records.some(({ target, addedNodes }) => target.id === "hits" && addedNodes.length)) return;
  const mine = window.seen;
  mine.asked = performance.getEntriesByName("asked").at(-1).startTime;
  requestAnimationFrame(() => setTimeout(() => {
    mine.hits = performance.now();
    pictures(mine);
  }));
};
new MutationObserver(changed).observe(document, { childList: true, subtree: true });
"""


def main() -> None:
    """Build, serve, look, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="first loads")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--screenshots", type=Path, help="folder to write them into")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        catalog = make_catalog(Path(folder), given.items)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with serving(catalog) as service:
            address = f"http://127.0.0.1:{service.port}/"
            loads = [load(browser, address) for _ in range(given.rounds + 1)][1:]  # the first makes thumbnails
            typed = search(browser, address, texts(given.queries))
        if given.screenshots:
            with serving(drawn_shop(Path(folder) / "shop")) as service:
                photograph(browser, f"http://127.0.0.1:{service.port}/", given.screenshots)
        browser.close()
    rows = [
        ["first load, hits seen", *shown(loads, "hits")],
        ["first load, with pictures", *shown(loads, "pictures")],
        ["last key to hits seen", *shown(typed, "hits", since="typed")],
        ["last key to hits seen, without the wait for another key", *shown(typed, "hits", since="asked")],
        ["last key to hits with pictures", *shown(typed, "pictures", since="typed")],
    ]
    for row in rows:
        print(*row)
    table = {"columns": ["what", "median ms", "worst ms"], "rows": rows}
    results = {"items": given.items, "page_bytes": loads[-1]["bytes"], "table": table, "loads": loads, "queries": typed}
    print(f"{loads[-1]['bytes']} bytes without pictures")
    print(write_results("page", results))


def make_catalog(folder: Path, count: int) -> Path:
    """A catalog of `count` items that look almost like one of the drawn products each."""
    draw_shop(folder, count=PRODUCTS)
    products = generate_products(count=PRODUCTS)
    encoder = load_encoder("starter")
    rows = encoder.encode_images([open_image(folder / product.image) for product in products])
    with Catalog.open(folder / "catalog", encoder=encoder) as catalog:
        for first in range(0, count, _BATCH):
            catalog.upsert(items(folder, products, rows, first=first, last=min(count, first + _BATCH)))
    return folder / "catalog"


def drawn_shop(folder: Path) -> Path:
    """A catalog of drawn products, embedded by the starter."""
    table = draw_shop(folder, count=SHOWN)
    with Catalog.open(folder / "catalog", encoder=load_encoder("starter")) as catalog:
        catalog.build(read_pairs(table))
    return folder / "catalog"


def items(folder: Path, products: list[Product], rows: Any, *, first: int, last: int) -> Iterator[dict[str, Any]]:
    """One item for each number: the picture of a product, a vector around its own, and what is said of it."""
    drawn = vectors_near(rows, last - first, seed=first)
    places = (drawn @ rows.T).argmax(axis=1)
    for number, row, place in zip(range(first, last), drawn, places, strict=True):
        product = products[place]
        yield {
            "id": f"item-{number}",
            "images": [folder / product.image],
            "image_vectors": [row],
            "captions": [f"{product.title} no. {number}"],
            "caption_vectors": [row],
            "attributes": {
                "kind": product.kind,
                "color": product.color,
                "category": product.category,
                "price": round(product.price * (0.5 + number % 100 / 100), 2),
                "stock": number % 60,
            },
        }


def texts(count: int) -> list[str]:
    """Different queries, as people type them."""
    colors, kinds = list(COLORS), list(KINDS)
    return [f"{colors[place % len(colors)]} {kinds[place * 7 % len(kinds)]}" for place in range(count)]


def load(browser: Browser, address: str) -> dict[str, float]:
    """Load the page into an empty browser, and return milliseconds since it was asked for, and its bytes."""
    context = browser.new_context(viewport=SCREENS["desktop"])
    page = context.new_page()
    page.add_init_script(WATCH)
    answers: list[Any] = []
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - Playwright marks what it is given
    page.goto(address)
    seen = settled(page)
    page.wait_for_load_state("networkidle")
    own = [answer for answer in answers if not urlsplit(answer.url).path.startswith("/items/")]
    seen["bytes"] = sum(len(answer.body()) for answer in own)
    context.close()
    return seen


def search(browser: Browser, address: str, queries: list[str]) -> list[dict[str, float]]:
    """Type queries one after another into one page, and return when what was seen."""
    page = browser.new_page(viewport=SCREENS["desktop"])
    page.add_init_script(WATCH)
    page.goto(address)
    settled(page)
    seen = []
    for query in ["first", *queries]:
        page.locator("#q").fill("")
        settled(page)
        page.locator("#q").press_sequentially(query, delay=KEY)
        seen.append(settled(page))
    page.close()
    return seen[1:]


def settled(page: Page) -> dict[str, float]:
    """Wait until the hits and all pictures on the screen are there, and return when they came."""
    while True:
        page.locator('main[aria-busy="false"]').wait_for()
        seen: dict[str, float] = page.evaluate("window.seen")
        if "pictures" in seen and seen.get("typed", 0) <= seen["asked"]:
            return seen
        page.wait_for_timeout(20)


def photograph(browser: Browser, address: str, folder: Path) -> None:
    """Write screenshots of a query at both widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SCREENS.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1.5)
            page.add_init_script(WATCH)
            page.goto(f"{address}?q=something+to+wear+on+rainy+days")
            settled(page)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"page-{name}-{scheme}.png")
            page.close()


def shown(seen: list[dict[str, float]], what: str, *, since: str | None = None) -> tuple[str, str]:
    """Median and worst, in milliseconds."""
    taken = [one[what] - (one[since] if since else 0.0) for one in seen]
    return f"{statistics.median(taken):.0f}", f"{max(taken):.0f}"


if __name__ == "__main__":
    main()
