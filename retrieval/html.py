"""Self-contained HTML pages: inline pictures, light and dark, no scripts, nothing loaded from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import ImageSource, open_image
from retrieval.types import Hit

THUMBNAIL: Final = 240
"""Longest side of a thumbnail in pixels: three hundred of them stay within a few megabytes."""

Picture: TypeAlias = Path | str | ImageSource | Image.Image
"""A picture to show: a path, a member of an archive, or an open picture."""

_MAX_ATTRIBUTES: Final = 6
_MAX_TEXT: Final = 400  # characters of a caption or an attribute's value


@dataclass(frozen=True, slots=True)
class Table:
    """A table with text in the first column and figures in the others."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page: a query and its hits, a figure, a table, or several of these."""

    heading: str = ""  # the query's text by default
    note: str = ""  # a line of explanation
    text: str | None = None  # the query's text
    image: Picture | None = None  # the query's picture
    like: str | None = None  # the id of the item that the query resembles
    minus: str | None = None  # the text that the query subtracts
    filters: tuple[str, ...] = ()  # the conditions, as text
    hits: Sequence[Hit] = ()  # best first. Hits that are captions are shown as a list, pictures as a grid.
    # the picture of each hit, where it is not at the hit's path, as in an archive; or empty
    pictures: Sequence[Picture | None] = ()
    svg: str = ""  # a figure by retrieval.plots, shown as an image so that nothing in it can run
    table: Table | None = None  # figures

    @property
    def shown_hits(self) -> list[tuple[Hit, Picture | None]]:
        """The hits with their pictures."""
        return list(zip(self.hits, self.pictures or [hit.image for hit in self.hits], strict=True))

    @property
    def has_query(self) -> bool:
        """Whether it shows a query, even one without hits."""
        return any((self.text, self.image, self.like, self.minus, self.filters, self.hits))


def contact_sheet(title: str, sections: Sequence[Section], *, intro: str = "") -> str:
    """Return the page's HTML; every text is escaped, an unreadable picture is a placeholder with the reason."""
    template = _environment().get_template("contact_sheet.html.j2")
    return template.render(title=title, intro=intro, sections=sections)


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure by retrieval.plots under its name."""

    name: str
    svg: str


@dataclass(frozen=True, slots=True)
class Example:
    """A validation query with its best right answer, and the wrong answer above that."""

    text: str  # the query, or the right answer
    picture: Picture  # the right answer, or the query
    before: float  # the right answer's rank before training, from 1
    after: float  # its rank by the saved model
    # what the saved model ranks first, where that is wrong: a picture for a text, a text for a picture
    instead: Picture | str | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Examples of one direction, "text_to_image" or "image_to_text", under a heading."""

    heading: str
    way: str
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The content of a training run's page."""

    title: str  # the page's title
    conclusion: str  # in words, whether training helped
    notes: Sequence[str]  # what the figures depend on
    recalls: Table | None  # before, after, and the difference; None without validation
    panels: Sequence[Panel]  # curves
    galleries: Sequence[Gallery]  # examples
    reading: str  # how the examples are sorted
    facts: Sequence[tuple[str, str]]  # of the data, by name
    settings: Sequence[tuple[str, str]]  # by name
    skipped: Sequence[tuple[str, str]]  # names and reasons


def training_report(page: ReportPage) -> str:
    """Return the HTML of a training run's page; every text is escaped."""
    return _environment().get_template("training_report.html.j2").render(title=page.title, intro="", page=page)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as a data URI, or why there is none."""

    uri: str = ""
    problem: str = ""
    width: int = 0
    height: int = 0


def thumbnail(picture: Picture | None, side: int = THUMBNAIL) -> Thumbnail:
    """Return the picture, at most `side` pixels on its longer side, as WebP in a data URI."""
    if picture is None:
        return Thumbnail(problem="no picture")
    try:
        if isinstance(picture, Image.Image):
            small = picture.convert("RGB")
        else:
            small = open_image(Path(picture) if isinstance(picture, str) else picture, size=side)
        small.thumbnail((side, side))
        file = BytesIO()
        small.save(file, "WEBP", quality=80)
        return Thumbnail(uri=_data_uri("image/webp", file.getvalue()), width=small.width, height=small.height)
    except (ImageError, OSError, ValueError) as error:
        return Thumbnail(problem=str(error))


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _format_attributes(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the first attributes that have a value, as names and texts."""
    filled = [(name, value) for name, value in attributes.items() if value not in (None, "", [])]
    return [(name, _format_value(value)) for name, value in filled[:_MAX_ATTRIBUTES]]


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return _shorten(", ".join(map(_format_value, value)) if isinstance(value, (list, tuple)) else str(value))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


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
    environment.filters.update(
        attributes=_format_attributes,
        shorten=_shorten,
        svg_uri=lambda svg: _data_uri("image/svg+xml", svg.encode()),
    )
    return environment
