"""The page at "/", driven in Chromium: what is typed, dropped, clicked and pressed shows the right items."""

import json
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
import uvicorn
from fake_encoder import COLORS, FakeEncoder
from PIL import Image
from serving import KEYS, READ

from retrieval.catalog import Catalog
from retrieval.server import Settings, make_app

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the PATH")

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE = 30  # seconds: no test waits as long, but where something hangs
HOSTILE = "<img src=x onerror=document.title='run'>"
EACH = 12  # items of a colour
PAGE = 24  # hits at once


def shade(color, number):
    """A plain picture, a little darker or brighter than the others of its colour."""
    return tuple(min(255, max(0, round(255 * part) + (4 * number if part < 0.5 else -4 * number))) for part in color)


def items():
    """Twelve squares of five colours: two of each model, a price for each."""
    for name, color in COLORS.items():
        for number in range(EACH):
            file = BytesIO()
            Image.new("RGB", (60, 40), shade(color, number)).save(file, "PNG")
            yield {
                "id": f"{name}/{number}",  # an id that an address has to encode
                "images": [file.getvalue()],
                "captions": [f"a {name} square, number {number}", f"seen from the {'front' if number % 2 else 'back'}"],
                "attributes": {
                    "color": name.title(),
                    "price": 10 * number + len(name) + 0.5,
                    "model": f"{name}{number // 2}",
                },
            }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with Catalog.open(tmp_path_factory.mktemp("shop") / "c", encoder=FakeEncoder()) as catalog:
        catalog.upsert(items())
        yield catalog


@contextmanager
def served(catalog, settings=None):
    """Serve a catalog on a free port of this machine, and give its address.

    Its pages are to be closed before it ends: one whose pictures are still on their way complains of a refused one.
    """
    server = uvicorn.Server(uvicorn.Config(make_app(catalog, settings or Settings(batch_size=8)), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        try:
            wait_until_ready(address)
            yield address
        finally:
            server.should_exit = True
            thread.join()


def wait_until_ready(address):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return urlopen(f"{address}/ready").close()  # noqa: S310 - our own
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.fixture(scope="module")
def address(shop):
    with served(shop) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open an address in a fresh browser; at the end it has complained of nothing and asked no other host."""
    contexts, complaints, hosts = [], [], set()

    def open_at(address, *, expect=(), settles=True, **options):
        context = chromium.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: None if any(one in said.text for one in expect) else complaints.append(said))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        if settles:
            settled(page)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert [getattr(one, "text", one) for one in complaints] == []
    assert len(hosts - {""}) == 1


def settled(page):
    """Wait until what was asked last is shown."""
    page.locator('body:has(main[aria-busy="false"]):has(#filters[aria-busy="false"])').wait_for()


_IDS = "[...document.querySelectorAll('#hits > li')].map(card => card.dataset.id)"


def ids(page):
    return page.evaluate(_IDS)


def shows(page, expected):
    """Wait until these items are shown, in this order."""
    comes(lambda: ids(page) == expected)


def comes(true):
    """Wait until something is true; the page's policy forbids Playwright's own way, which is eval.

    What it looks at is to be asked of the page: Playwright hears of events, and of a new `page.url`, only in its calls.
    """
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def asked(address, **body):
    """The ids that the service itself finds."""
    sent = Request(f"{address}/search", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(sent) as answer:  # noqa: S310
        return [hit["id"] for hit in json.load(answer)["hits"]]


def typed(page, text):
    page.locator("#q").press_sequentially(text)
    settled(page)


def choose_facets(page, name):
    page.locator("#filters").get_by_label(name).click()
    settled(page)


def panel(page):
    return page.get_by_role("dialog")


def test_typed_text_shows_the_hits_of_the_service_in_order(opened, address):
    page = opened(address)
    assert page.evaluate("document.activeElement.id") == "q"
    assert page.locator("#count").inner_text() == "60 items"
    assert len(ids(page)) == PAGE
    typed(page, "blue")
    assert ids(page) == asked(address, text="blue", k=PAGE)
    assert ids(page)[0].startswith("blue/")
    assert page.title() == "blue"
    page.locator("#q").fill("")
    settled(page)
    assert ids(page) == asked(address, k=PAGE)


def test_images_load_in_their_cards(opened, address):
    page = opened(address)
    first = page.locator("#hits img").first
    comes(lambda: first.evaluate("image => image.complete && image.naturalWidth") == 60)
    assert [first.get_attribute(name) for name in ("width", "height", "loading")] == ["240", "240", "lazy"]


def test_a_stale_response_is_not_shown(opened, address):
    page = opened(address)
    held = []

    def hold(route):
        if "green" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/search", hold)
    page.locator("#q").fill("green")
    comes(lambda: page.wait_for_timeout(10) or held)
    page.locator("#q").fill("red")
    settled(page)
    held[0].continue_()
    page.wait_for_timeout(100)
    assert len(held) == 1
    assert ids(page) == asked(address, text="red", k=PAGE)


def test_text_typed_while_a_response_arrives_is_searched_next(opened, address):
    page = opened(address)
    page.clock.install()
    page.clock.pause_at(time.time() + 3600)  # what is typed is searched after a pause, which now does not end by itself
    held = []
    page.route("**/search", lambda route: route.continue_() if held else held.append(route))
    page.locator("#sort").select_option("-price")
    comes(lambda: page.wait_for_timeout(10) or held)
    page.locator("#q").press_sequentially("blue")
    with page.expect_response("**/search"):
        held[0].continue_()
    shows(page, asked(address, sort=["-price"], k=PAGE))
    assert page.locator("main").get_attribute("aria-busy") == "true"
    page.clock.resume()
    settled(page)
    assert ids(page) == asked(address, text="blue", sort=["-price"], k=100)


def test_text_typed_while_the_panel_closes_is_searched(opened, address):
    page = opened(address)
    page.locator("#hits .card").first.click()
    panel(page).wait_for()
    page.evaluate(
        """() => {
            const [panel, q] = [document.getElementById("panel"), document.getElementById("q")];
            panel.addEventListener("close", () => {  // the page is on its way back, but not yet there
                q.focus();
                q.value = "blue";
                q.dispatchEvent(new Event("input"));
            });
            panel.close();
        }"""
    )
    shows(page, asked(address, text="blue", k=PAGE))
    assert page.locator("#q").input_value() == "blue"


def test_words_after_a_minus_are_searched_away_from(opened, address):
    page = opened(address)
    typed(page, "white -blue")
    assert ids(page) == asked(address, text="white", minus="blue", k=PAGE)
    page.get_by_label("Remove not blue").click()
    settled(page)
    assert page.locator("#q").input_value() == "white"


def test_a_facet_narrows_to_its_count(opened, address):
    page = opened(address)
    assert page.locator("#filters summary").all_inner_texts() == ["Color", "Price"]
    choose_facets(page, "Blue")
    assert page.locator("#count").inner_text() == f"{EACH} items"
    assert set(ids(page)) == {f"blue/{number}" for number in range(EACH)}
    choose_facets(page, "Red")  # its count was that of the other colours, not of what was left
    assert page.locator("#count").inner_text() == f"{2 * EACH} items"
    page.get_by_role("button", name="under 25").click()
    settled(page)
    assert set(ids(page)) == {f"{name}/{number}" for name in ("red", "blue") for number in range(3)}
    page.get_by_label("Remove Color: Red").click()
    settled(page)
    assert set(ids(page)) == {f"blue/{number}" for number in range(3)}
    page.get_by_label("Price to").fill("4")
    page.keyboard.press("Enter")
    settled(page)
    assert "Nothing passes these filters" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Clear filters").click()
    settled(page)
    assert page.locator("#count").inner_text() == "60 items"


def test_a_facet_value_unticked_during_counting_stays_unticked(opened, address):
    page = opened(address)
    page.route("**/search", lambda route: route.continue_() if '"facets"' not in route.request.post_data else None)
    page.locator("#filters").get_by_label("Blue").click()
    page.get_by_label("Remove Color: Blue").click()
    page.unroute("**/search")
    settled(page)
    assert not page.locator("#filters").get_by_label("Blue").is_checked()


def test_back_forward_and_reload_restore_the_search(opened, address):
    page = opened(address)
    typed(page, "green")
    choose_facets(page, "Green")
    before = ids(page)
    page.reload()
    shows(page, before)
    page.go_back()
    shows(page, asked(address, text="green", k=PAGE))
    page.go_back()
    shows(page, asked(address, k=PAGE))
    assert page.locator("#q").input_value() == ""
    page.go_forward()
    shows(page, asked(address, text="green", k=PAGE))
    assert page.locator("#q").input_value() == "green"


def test_a_hand_made_url_does_no_harm(opened, address):
    page = opened(f"{address}/?filters=%5B1%5D&n=-3&weight=x&sort=nothing&unknown=1")
    assert page.locator("#count").inner_text() == "60 items"


def test_sorting_by_price_browses_and_reorders_search_hits(opened, address):
    page = opened(address)
    page.locator("#sort").select_option("-price")
    settled(page)
    assert ids(page) == asked(address, sort=["-price"], k=PAGE)
    choose_facets(page, "Blue")
    typed(page, "blue")
    page.locator("#sort").select_option("price")
    settled(page)
    assert ids(page) == [f"blue/{number}" for number in range(EACH)]


def test_hits_are_sorted_by_the_service_also_by_a_nested_attribute(opened, tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        prices = [50, 20, 40, 10, 30, 60]
        catalog.upsert(
            {
                "id": f"{price}",
                "images": [picture_of("red", number)["buffer"]],
                "attributes": {"offer": {"price": price / 8}},
            }
            for number, price in enumerate(prices * 3)
        )
        with served(catalog) as address:
            page = opened(f"{address}/?q=red&sort=-offer.price")
            assert ids(page) == ["60", "50", "40", "30", "20", "10"]
            page.context.close()


def test_the_page_requests_no_more_hits_than_the_limit(opened, shop):
    with served(shop, Settings(batch_size=8, max_results=10)) as address:
        page = opened(f"{address}/?n=500")
        assert ids(page) == asked(address, k=10)
        assert page.locator("#more").is_hidden()
        page.locator("#sort").select_option("price")
        typed(page, "blue")
        assert ids(page) == asked(address, text="blue", sort=["price"], k=10)
        page.locator("#hits .card").first.click()
        panel(page).get_by_role("button", name="Captions for this picture").click()
        panel(page).locator("li a").first.wait_for()
        page.context.close()


def test_variants_can_be_grouped_and_ungrouped(opened, address):
    page = opened(address)
    page.get_by_label("Group variants").click()
    settled(page)
    shows(page, asked(address, group="model", k=PAGE))
    assert page.locator("#hits .why").first.inner_text() == "2 variants"
    page.locator("#hits .card").first.click()
    panel(page).get_by_role("button", name="All 2 variants").click()
    settled(page)
    assert set(ids(page)) == {"red/0", "red/1"}


def test_scrolling_loads_more_hits(opened, address):
    page = opened(address)
    for last in (PAGE, 2 * PAGE):
        page.locator("#hits > li").nth(last - 1).scroll_into_view_if_needed()
        page.locator("#hits > li").nth(last).wait_for(state="attached")
    shows(page, asked(address, k=60))
    assert page.locator("#more").is_hidden()
    page.reload()
    shows(page, asked(address, k=60))


def test_a_tall_screen_is_filled_without_scrolling(opened, address):
    page = opened(address, viewport={"width": 1280, "height": 4000})
    shows(page, asked(address, k=60))


def picture_of(color, number=0):
    file = BytesIO()
    Image.new("RGB", (900, 600), shade(COLORS[color], number)).save(file, "PNG")
    return {"name": "photo.png", "mimeType": "image/png", "buffer": file.getvalue()}


def test_an_image_finds_similar_items_mixes_with_words_and_finds_captions(opened, address):
    page = opened(address)
    page.locator("#file").set_input_files(picture_of("green"))
    page.locator("#parts .chip").wait_for()
    settled(page)
    assert {one.partition("/")[0] for one in ids(page)[:EACH]} == {"green"}
    page.reload()  # this tab still has it
    settled(page)
    assert {one.partition("/")[0] for one in ids(page)[:EACH]} == {"green"}
    page.get_by_role("button", name="Captions").click()
    assert "square" in panel(page).locator("li").first.inner_text()
    page.keyboard.press("Escape")
    page.locator("#q").fill("red")
    settled(page)
    slider = page.get_by_label("How much the words count")
    slider.focus()
    page.keyboard.press("End")
    settled(page)
    assert {one.partition("/")[0] for one in ids(page)[:EACH]} == {"red"}
    page.get_by_label("Remove Your picture").click()
    settled(page)
    assert ids(page) == asked(address, text="red", k=PAGE)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_can_be_dropped_or_pasted(opened, address, way):
    page = opened(address)
    page.evaluate(
        """async ([way, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
            const event = way === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.body.dispatchEvent(event);
        }""",
        [way, list(picture_of("blue")["buffer"])],
    )
    page.locator("#parts .chip").wait_for()
    settled(page)
    assert ids(page)[0].startswith("blue/")


def test_a_dropped_file_that_is_no_image_is_reported(opened, address):
    page = opened(address, expect=("422",))
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.get_by_role("button", name="Try again").wait_for()
    assert "picture" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Show everything").click()
    settled(page)
    assert page.locator("#count").inner_text() == "60 items"


def test_the_panel_shows_an_item_with_its_captions_and_similar_items(opened, address):
    page = opened(address)
    typed(page, "blue")
    first = ids(page)[0]
    page.locator("#hits .card").first.click()
    shown = panel(page)
    shown.get_by_text("seen from the").wait_for()
    assert shown.get_by_role("heading", level=2).inner_text() == f"a blue square, number {first[5:]}"
    assert shown.locator("tr").all_inner_texts()[0] == "Color\tBlue"
    shown.get_by_role("button", name="Captions for this picture").click()
    captions = shown.locator("li a")
    captions.first.wait_for()
    assert captions.first.inner_text().startswith("a blue square")
    shown.get_by_role("button", name="More like this").click()
    settled(page)
    assert shown.is_hidden()
    assert ids(page) == asked(address, like=first, k=PAGE)
    assert first not in ids(page)


def test_captions_that_arrive_before_the_rest_of_an_item_stay(opened, address):
    page = opened(address)
    held = []
    page.route("**/items/*", lambda route: held.append(route))  # noqa: PLW0108 - a builtin cannot be given
    page.locator("#hits .card").first.click()
    panel(page).get_by_role("button", name="Captions for this picture").click()
    panel(page).locator("li a").first.wait_for()
    comes(lambda: page.wait_for_timeout(10) or held)
    held[0].continue_()
    panel(page).locator(".told > p", has_text="seen from the").wait_for()
    assert panel(page).locator("li a").count() > 0


def test_an_item_opened_before_the_last_one_closed_stays_open(opened, address):
    page = opened(address)
    page.locator("#hits .card").first.click()
    panel(page).wait_for()
    page.evaluate(
        """() => new Promise(closed => {  // the event of a closed dialog comes after it is hidden
            const panel = document.getElementById("panel");
            panel.addEventListener("close", () => setTimeout(closed, 100));
            panel.close();
            document.querySelectorAll("#hits .card")[1].click();
        })"""
    )
    panel(page).get_by_text("red/1", exact=True).wait_for()
    assert page.evaluate("location.search") == "?item=red%2F1"


def test_an_item_has_its_own_url_and_back_closes_it(opened, address):
    page = opened(f"{address}/?item=green%2F3")
    panel(page).get_by_text("a green square, number 3").wait_for()
    panel(page).get_by_role("button", name="Close").click()
    panel(page).wait_for(state="hidden")
    comes(lambda: page.evaluate("location.search") == "")  # the event of a closed dialog comes after it is hidden
    page.locator("#hits .card").first.click()
    panel(page).wait_for()
    page.go_back()
    panel(page).wait_for(state="hidden")


def test_the_page_works_by_keyboard_alone(opened, address):
    page = opened(address)
    page.keyboard.type("red")
    settled(page)
    found = ids(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.parentElement.dataset.id") == found[1]
    page.keyboard.press("Enter")
    panel(page).get_by_text(found[1], exact=True).wait_for()
    page.keyboard.press("ArrowRight")
    panel(page).get_by_text(found[2], exact=True).wait_for()
    page.keyboard.press("Escape")
    panel(page).wait_for(state="hidden")
    page.keyboard.press("m")
    settled(page)
    assert ids(page) == asked(address, like=found[1], k=PAGE)
    page.keyboard.press("/")
    page.keyboard.type("blue")
    settled(page)
    assert page.locator("#q").input_value() == "blue"
    page.keyboard.press("Escape")
    settled(page)
    assert page.locator("#q").input_value() == ""


def test_on_a_phone_the_page_scrolls_vertically_and_filters_open_in_a_sheet(opened, address):
    page = opened(address, viewport=PHONE, has_touch=True)
    typed(page, "red -blue")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("button", name="Filters").click()
    choose_facets(page, "Red")
    page.get_by_role("button", name="Show results").click()
    assert page.locator("#count").inner_text().startswith(f"{EACH} items")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("#hits .card").first.tap()
    panel(page).get_by_role("button", name="More like this").wait_for()
    assert panel(page).evaluate("one => one.scrollWidth <= one.clientWidth")


def luminance(color):
    parts = [int(part) / 255 for part in color[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast_in_both_color_schemes(opened, address, scheme):
    page = opened(f"{address}/?q=red+-blue", color_scheme=scheme)
    of = "one => [getComputedStyle(one).color, getComputedStyle(document.body).backgroundColor]"
    for place in ("body", "#count", ".choice .soft", ".tips"):
        one, other = (luminance(color) for color in page.locator(place).first.evaluate(of))
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 4.5, place
        assert (other < 0.1) == (scheme == "dark")


def test_texts_of_a_catalog_are_never_markup(opened, tmp_path):
    with Catalog.open(tmp_path / "c", encoder=FakeEncoder()) as catalog:
        hostile = {"color": HOSTILE, HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}
        pictures = [picture_of("red", number)["buffer"] for number in range(3)]
        catalog.upsert(
            {"id": f"{number}{HOSTILE}", "images": [data], "captions": [HOSTILE, HOSTILE + "2"], "attributes": hostile}
            if number
            else {"id": "plain", "images": [data], "captions": [], "attributes": {"color": "plain"}}
            for number, data in enumerate(pictures)
        )
        with served(catalog) as address:
            page = opened(address)
            choose_facets(page, HOSTILE)
            typed(page, HOSTILE)
            page.locator("#hits .card").first.click()
            panel(page).get_by_role("button", name="Captions for this picture").click()
            panel(page).locator("li").first.wait_for()
            panel(page).get_by_role("button", name="More like this").click()
            settled(page)
            assert page.locator("#hits .title").first.inner_text() == HOSTILE
            assert HOSTILE in page.locator("#parts").inner_text()
            assert page.locator("[onerror]").count() == 0
            assert page.title() != "run"
            page.context.close()


def test_a_key_is_asked_for_once_and_also_loads_images(opened, shop):
    with served(shop, KEYS) as address:
        page = opened(address, expect=("401",), settles=False)
        dialog = page.get_by_role("dialog", name="This service needs a key")
        for key, told in (
            ("no-key-of-theirs", "kept until"),
            (READ["Authorization"].removeprefix("Bearer "), "not known"),
        ):
            dialog.get_by_text(told).wait_for()
            dialog.get_by_label("Key").fill(key)
            dialog.get_by_role("button").click()
        settled(page)
        assert dialog.is_hidden()
        assert len(ids(page)) == PAGE
        comes(lambda: page.evaluate("document.querySelector('#hits img').naturalWidth === 60"))
        page.reload()
        settled(page)
        assert len(ids(page)) == PAGE
        page.context.close()


def test_an_unreachable_service_is_reported_and_retried(opened, address):
    page = opened(address, expect=("net::ERR_FAILED",))
    page.route("**/search", lambda route: route.abort())
    page.locator("#q").fill("red")
    page.get_by_text("does not answer").wait_for()
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    page.locator("#hits > li").first.wait_for()
    found = ids(page)  # more than a page where there is room below
    assert len(found) >= PAGE
    assert found == asked(address, text="red", k=len(found))


def test_the_page_is_small(chromium, address):
    page, answers = chromium.new_page(), []
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 - a builtin cannot be given
    page.goto(address)
    settled(page)
    sizes = {path: len(one.body()) for one in answers if not (path := urlsplit(one.url).path).startswith("/items/")}
    page.close()
    assert {"/", "/app.js", "/style.css", "/search"} <= set(sizes)
    assert sum(sizes.values()) < 100_000
