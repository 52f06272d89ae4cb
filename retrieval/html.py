"""Results as one self-contained page: pictures inline, light and dark, no script, nothing loaded from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import ImageSource, open_image

THUMBNAIL: Final = 240
"""Longest side of a shown picture in pixels: three hundred of them stay within a few megabytes."""

Picture: TypeAlias = Path | str | ImageSource | Image.Image
"""What can be shown: a path, a member of an archive, or a picture that is open already."""

_SHOWN_ATTRIBUTES: Final = 6
_SHOWN_TEXT: Final = 400  # characters of a caption or an attribute's value


class ShownHit(Protocol):
    """What the page needs of a hit (see retrieval.types.Hit)."""

    @property
    def score(self) -> float:
        """Cosine."""

    @property
    def id(self) -> str:
        """The item's id."""

    @property
    def image(self) -> str | None:
        """Path of its picture."""

    @property
    def caption(self) -> str | None:
        """Its caption."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The item's attributes."""

    @property
    def target(self) -> str:
        """What was ranked, `images` or `captions`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A small table: text in the first column, figures in the others."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page: a query and its hits, a figure, a table, or several of these.

    Attributes:
        heading: above it all; by default the query in words.
        note: a line of explanation.
        text: words that were asked.
        image: the picture that was asked, as a path or opened.
        like: id of an item that was asked.
        minus: words that were subtracted.
        filters: conditions, as shown.
        hits: best first. Captions that were ranked stand in a list, pictures in a grid.
        pictures: of each hit, where that is not at the hit's path, as in an archive; or empty.
        svg: a figure, drawn by retrieval.plots. It is shown as an image, so that nothing in it can run.
        table: figures.
    """

    heading: str = ""
    note: str = ""
    text: str | None = None
    image: Picture | None = None
    like: str | None = None
    minus: str | None = None
    filters: tuple[str, ...] = ()
    hits: Sequence[ShownHit] = ()
    pictures: Sequence[Picture | None] = ()
    svg: str = ""
    table: Table | None = None

    def picture_of(self, place: int) -> Picture | None:
        """The picture of the hit at this place, from 0."""
        return self.pictures[place] if self.pictures else self.hits[place].image

    @property
    def asks(self) -> bool:
        """Whether it shows a query, be it one that found nothing."""
        return any((self.text, self.image, self.like, self.minus, self.filters, self.hits))


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data URI, or why there is none."""

    uri: str = ""
    problem: str = ""
    width: int = 0
    height: int = 0


def contact_sheet(title: str, sections: Sequence[Section], *, intro: str = "") -> str:
    """The page's HTML. Every text is escaped; a picture that cannot be read is a placeholder with the reason."""
    template = _environment().get_template("contact_sheet.html.j2")
    return template.render(title=title, intro=intro, sections=sections)


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure, drawn by retrieval.plots, under its name."""

    name: str
    svg: str


class ShownExample(Protocol):
    """A query of a training's validation, with where its right answer came before and after."""

    @property
    def text(self) -> str:
        """What was asked, or the right answer."""

    @property
    def picture(self) -> Picture:
        """The right answer, or what was asked."""

    @property
    def before(self) -> float:
        """Rank of the right answer, from 1."""

    @property
    def after(self) -> float:
        """Rank of the right answer, from 1."""

    @property
    def instead(self) -> Picture | str | None:
        """What is ranked first, where that is wrong: a picture for a text, a text for a picture."""


class ShownExamples(Protocol):
    """Examples under a heading."""

    @property
    def heading(self) -> str:
        """What they have in common."""

    @property
    def way(self) -> str:
        """Which way was asked, "text_to_image" or "image_to_text"."""

    @property
    def examples(self) -> Sequence[ShownExample]:
        """In order."""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """What the page of a training run shows.

    Attributes:
        title: above it all.
        verdict: in words, whether training helped.
        notes: what one has to know to read the figures.
        recalls: before, after, and the difference; None where nothing was measured.
        panels: curves.
        galleries: examples.
        reading: how examples are sorted.
        facts: of the data, by name.
        settings: by name.
        skipped: names and reasons.
    """

    title: str
    verdict: str
    notes: Sequence[str]
    recalls: Table | None
    panels: Sequence[Panel]
    galleries: Sequence[ShownExamples]
    reading: str
    facts: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    skipped: Sequence[tuple[str, str]]


def training_report(page: ReportPage) -> str:
    """The HTML of a training run's page; every text is escaped."""
    return _environment().get_template("training_report.html.j2").render(title=page.title, intro="", page=page)


def thumbnail(picture: Picture | None, side: int = THUMBNAIL) -> Thumbnail:
    """The picture, at most `side` pixels on its longer side, as WebP in a data URI."""
    if picture is None:
        return Thumbnail(problem="no picture")
    try:
        small = picture.convert("RGB") if isinstance(picture, Image.Image) else _opened(picture, side)
        small.thumbnail((side, side))
        return Thumbnail(uri=_data_uri(small), width=small.width, height=small.height)
    except (ImageError, OSError, ValueError) as error:
        return Thumbnail(problem=str(error))


def _opened(picture: Path | str | ImageSource, side: int) -> Image.Image:
    return open_image(picture if isinstance(picture, ImageSource) else Path(picture), size=side)


def _data_uri(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _svg_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _few(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The first attributes that have a value, as names and texts."""
    filled = [(name, value) for name, value in attributes.items() if value not in (None, "", [])]
    return [(name, _words(value)) for name, value in filled[:_SHOWN_ATTRIBUTES]]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return _cut(", ".join(map(_words, value)))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("retrieval"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(thumbnail=thumbnail)
    environment.filters.update(few=_few, cut=_cut, svg_uri=_svg_uri)
    return environment
