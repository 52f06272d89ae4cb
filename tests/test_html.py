"""The results page: self-contained, escaped, accessible, and whole where pictures are not."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from retrieval.html import THUMBNAIL, Section, Table, contact_sheet, thumbnail

HOSTILE = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>'


@dataclass(frozen=True)
class Found:
    """A hit, as a search returns it."""

    score: float = 0.5
    id: str = "p1"
    image: str | None = None
    caption: str | None = "a red mug"
    attributes: dict = field(default_factory=dict)
    target: str = "images"


class Page(HTMLParser):
    """The elements of a page and the texts in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Remember the element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Remember the text."""
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def all(self, tag):
        """The attributes of each element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo ü.png"
    Image.linear_gradient("L").resize((900, 600)).convert("RGB").save(path)
    return path


def inline(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, base64.b64decode(data)


def test_a_hit_shows_its_picture_caption_score_rank_and_attributes(photo):
    hit = Found(score=0.12345, id="MH01", image=str(photo), attributes={"price": 52.0, "color": ["black", "gray"]})
    page = Page(contact_sheet("Shop", [Section(text="red mug", hits=[hit])]))
    (shown,) = page.all("img")
    kind, data = inline(shown["src"])
    with Image.open(BytesIO(data)) as picture:
        assert (kind, picture.format, picture.size) == ("data:image/webp", "WEBP", (240, 160))
    assert shown["alt"] == "a red mug"
    assert {"1 · MH01", "0.123", "a red mug", "52", "black, gray", "red mug"} <= set(page.texts)


def test_hits_keep_their_order():
    hits = [Found(id=f"p{number}", score=1 - number / 10) for number in range(5)]
    page = Page(contact_sheet("Shop", [Section(text="mug", hits=hits)]))
    assert [text for text in page.texts if "·" in text] == [f"{rank} · p{rank - 1}" for rank in range(1, 6)]


def test_every_text_is_escaped(photo):
    hits = [Found(id=HOSTILE, image=str(photo), caption=HOSTILE, attributes={HOSTILE: [HOSTILE]}, target=target)
            for target in ("images", "captions")]  # fmt: skip
    sections = [
        Section(
            heading=HOSTILE, note=HOSTILE, text=HOSTILE, like=HOSTILE, minus=HOSTILE, filters=(HOSTILE,), hits=[hit]
        )
        for hit in hits
    ]
    sections.append(Section(svg=HOSTILE, table=Table((HOSTILE,), ((HOSTILE,),))))
    sections.append(Section(text=HOSTILE, hits=[Found(image=f"/nowhere/{HOSTILE}")]))
    page = Page(contact_sheet(HOSTILE, sections, intro=HOSTILE))
    assert not page.all("script")
    assert all(not any(name.startswith("on") for name in attributes) for _, attributes in page.elements)
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))


def test_nothing_is_loaded_from_elsewhere(photo):
    text = contact_sheet("Shop", [Section(image=photo, hits=[Found(image=str(photo), target="captions")])])
    page = Page(text)
    assert not re.search(r"url\(|@import|http", text.replace("http-equiv", ""))
    assert not page.all("link")
    assert not page.all("a")


@pytest.mark.parametrize("image", [None, "/nowhere/a.png", "shard.tar/a.jpg", ""])
def test_a_missing_picture_is_a_placeholder_with_its_reason(image):
    page = Page(contact_sheet("Shop", [Section(text="mug", hits=[Found(image=image)])]))
    (label,) = [attributes["aria-label"] for attributes in page.all("div") if attributes.get("role") == "img"]
    name, _, reason = label.partition(": ")
    assert name == "a red mug"
    assert reason
    assert reason in page.texts


def test_a_damaged_picture_is_a_placeholder(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    assert thumbnail(path).uri == ""
    assert "damaged" in thumbnail(path).problem


def test_caption_hits_are_a_list_beside_the_query_picture(photo):
    hits = [Found(caption="a blue hat", target="captions"), Found(caption="a red hat", target="captions")]
    page = Page(contact_sheet("Shop", [Section(image=photo, hits=hits)]))
    assert [attributes["class"] for attributes in page.all("ol")] == ["list"]
    assert page.texts.index("a blue hat") < page.texts.index("a red hat")
    assert [attributes["alt"] for attributes in page.all("img")] == ["The picture that was asked"]


def test_a_mixed_query_shows_each_of_its_parts(photo):
    section = Section(text="in blue", image=photo, like="p7", minus="stripes", filters=("price<30",), hits=[Found()])
    page = Page(contact_sheet("Shop", [section]))
    assert {"in blue", "like p7", "− stripes", "price<30"} <= set(page.texts)


def test_a_query_picture_may_be_an_open_image():
    page = Page(contact_sheet("Shop", [Section(image=Image.new("RGBA", (10, 10)), hits=[Found()])]))
    assert page.all("img")[0]["width"] == "10"


def test_a_query_without_hits_shows_that_nothing_was_found():
    assert "Nothing found." in Page(contact_sheet("Shop", [Section(text="unicorn")])).texts


def test_a_table_has_headers_for_its_rows_and_columns():
    table = Table(("recall", "R@1"), (("text → image", "62.0 %"),))
    page = Page(contact_sheet("Shop", [Section(heading="Recall", table=table)]))
    assert [cell["scope"] for cell in page.all("th")] == ["col", "col", "row"]
    assert "Nothing found." not in page.texts


def test_a_figure_is_an_image_in_which_no_script_runs():
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><text>ä</text></svg>"
    (shown,) = Page(contact_sheet("Shop", [Section(heading="Recall", svg=svg)])).all("img")
    assert inline(shown["src"]) == ("data:image/svg+xml", svg.encode())
    assert shown["alt"] == "Recall"


def test_every_picture_has_alternative_text_and_headings_are_in_order(photo):
    page = Page(contact_sheet("Shop", [Section(text="mug", hits=[Found(caption=None, image=str(photo))])]))
    assert [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)] == ["h1", "h2"]
    assert [image["alt"] for image in page.all("img")] == ["p1"]
    assert page.all("html") == [{"lang": "en"}]


def test_the_page_follows_the_color_scheme_and_fits_a_phone():
    text = contact_sheet("Shop", [])
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def colors(text, scheme):
    block = text.split("@media (prefers-color-scheme: dark)")[scheme == "dark"]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


def luminance(color):
    """Relative luminance by WCAG 2.2."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_color_has_the_contrast_that_wcag_requires(scheme):
    """4.5 to 1, level AA for text of usual size."""
    named = colors(contact_sheet("Shop", []), scheme)
    pairs = [(ink, ground) for ink in ("ink", "soft") for ground in ("page", "card", "tile")]
    for ink, ground in [*pairs, ("accent", "accent-soft"), ("minus", "minus-soft")]:
        light, dark = sorted((luminance(named[ink]), luminance(named[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_long_texts_are_shortened_and_few_attributes_are_shown():
    attributes = {f"a{number}": "x" * 5000 for number in range(50)} | {"empty": None}
    text = contact_sheet("Shop", [Section(text="y" * 5000, hits=[Found(caption="z" * 5000, attributes=attributes)])])
    assert text.count("<dt>") == 6
    assert len(text) < 20_000


def test_a_thumbnail_is_bounded_however_long_the_picture_is(tmp_path):
    path = tmp_path / "long.png"
    Image.effect_noise((4000, 300), 90).convert("RGB").save(path)
    small = thumbnail(path)
    assert (small.width, small.height) == (THUMBNAIL, 18)
    assert len(small.uri) < 20_000
