"""`retrieval search`: hits as lines, as JSON, as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.cli.shared import DEVICES, FILE, PATH, notice, reading, usage
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from retrieval.catalog import Hit, Mode
    from retrieval.images import ImageSource
    from retrieval.types import Target


@click.command()
@click.argument("catalog", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--image", type=FILE, help="Search with this picture.")
@click.option("--like", metavar="ITEM", help="Search with the pictures of this item.")
@click.option("--minus", metavar="TEXT", help="Away from these words.")
@click.option(
    "--weight",
    "weights",
    metavar="PART=X",
    multiple=True,
    help="Weight of text, image, like, minus; of words with --hybrid.",
)
@click.option(
    "--where",
    "filters",
    metavar="EXPR",
    multiple=True,
    help='Filter: "price<60", color=gray, title~red; repeat to and.',
)
@click.option(
    "--images", "target", flag_value="images", default=None, help="Rank images (default for a text or a mix)."
)
@click.option(
    "--captions", "target", flag_value="captions", default=None, help="Rank captions (default for an image alone)."
)
@click.option(
    "--items",
    "target",
    flag_value="items",
    default=None,
    help="Rank items, pictures and captions together (default with --words or --hybrid).",
)
@click.option(
    "--words", "mode", flag_value="words", default=None, help="Rank by the text's words alone, not its meaning."
)
@click.option("--hybrid", "mode", flag_value="hybrid", default=None, help="Rank by words and meaning together.")
@click.option("--sort", metavar="NAME", multiple=True, help="Sort by an attribute; -NAME from the greatest. Repeat it.")
@click.option("--group", metavar="NAME", help="Of items that share this attribute, only the best.")
@click.option("--floor", type=click.FloatRange(-1, 1), metavar="SCORE", help="Least cosine of a result.")
@click.option("-k", "k", type=click.IntRange(min=1), default=10, show_default=True, help="Number of results.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Leave out so many of the best, to page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--html", type=FILE, help="Also write the results as one self-contained page.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
def search(
    catalog: Path,
    text: Sequence[str],
    *,
    image: Path | None,
    like: str | None,
    minus: str | None,
    weights: Sequence[str],
    filters: Sequence[str],
    target: "Target | None",
    mode: "Mode | None",
    sort: Sequence[str],
    group: str | None,
    floor: float | None,
    k: int,
    offset: int,
    as_json: bool,
    html: Path | None,
    device: str,
) -> None:
    """Search CATALOG by TEXT, by an image, by an item, or by a weighted mix of them; or browse it by --where alone.

    A text is searched by its meaning, as in Python; with --words by its words, with --hybrid by both. The service takes
    both where it is not told otherwise: an id or a SKU that is typed is found there, and here with --hybrid.
    """
    words = " ".join(text) or None
    if html is not None and not html.absolute().parent.is_dir():
        raise click.UsageError(f"--html {html}: there is no folder {html.absolute().parent}")
    with usage():
        where = _where(filters)
        weighted = dict(_weight(part) for part in weights)
    with reading(catalog, device=device) as opened, usage():
        hits = opened.search(
            words,
            image=image,
            like=like,
            minus=minus,
            weights=weighted,
            mode=mode or "vectors",
            target=target,
            k=k,
            offset=offset,
            where=where,
            sort=sort,
            group=group,
            floor=floor,
        )
        for hit in hits:
            click.echo(json.dumps(_hit_record(hit), ensure_ascii=False) if as_json else _hit_line(hit))
        if not hits:
            notice(_why_nothing(where, opened.info()["attributes"]))
        named = dict.fromkeys([*(name.removeprefix("-") for name in sort), *([group] if group else [])])
        unseen = [name for name in named if not any(name in hit.attributes for hit in hits)]
        if hits and unseen:
            _tell_unknown(unseen, opened.info()["attributes"])
        if html is not None:
            query = {"text": words, "image": image, "like": like, "minus": minus, "filters": tuple(filters)}
            _write_sheet(html, hits, pictures=[opened.image_source(hit.id, hit.position) for hit in hits], query=query)


def _where(expressions: Sequence[str]) -> dict[str, Any] | None:
    from retrieval.filters.expressions import parse_expression

    parsed = [parse_expression(expression) for expression in expressions]
    return {"$and": parsed} if parsed else None


def _weight(text: str) -> tuple[str, float]:
    part, equals, value = text.partition("=")
    try:
        return part.strip(), float(value if equals else "")
    except ValueError:
        raise QueryError(f"--weight {text!r} is not PART=NUMBER, such as text=0.5") from None


def _hit_line(hit: "Hit") -> str:
    shown = " ".join((hit.caption or "").split()) if hit.target == "captions" else hit.image
    return "\t".join((f"{hit.score:.4f}", _printable(hit.id), _printable(shown or "")))


def _printable(text: str) -> str:
    """A text without tabs, line ends and control codes, which would break the line or the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _why_nothing(where: Mapping[str, Any] | None, attributes: Sequence[str]) -> str:
    from retrieval.filters import parse_filter

    if where is None:
        return "nothing found"
    unknown = sorted(parse_filter(where).keys() - set(attributes))
    if not unknown:
        return "nothing found that the filter lets through"
    return f"nothing found: {_no_attribute(unknown[0], attributes)}"


def _tell_unknown(named: Sequence[str], attributes: Sequence[str]) -> None:
    """Say which of the attributes to sort or group by no item has: without a word the order would look meant."""
    for name in named:
        if name not in attributes:
            notice(_no_attribute(name, attributes))


def _no_attribute(name: str, attributes: Sequence[str]) -> str:
    return f"no item has an attribute {name!r}; there are {', '.join(attributes) or 'none'}"


def _hit_record(hit: "Hit") -> Mapping[str, Any]:
    record = asdict(hit)
    del record["position"]
    return {name: value for name, value in record.items() if name not in {"ranks", "variants"} or value}


def _write_sheet(
    path: Path, hits: "Sequence[Hit]", *, pictures: "Sequence[ImageSource | None]", query: Mapping[str, Any]
) -> None:
    from retrieval.html import Section, contact_sheet

    section = Section(hits=tuple(hits), pictures=pictures, **query)
    path.write_text(contact_sheet("Search results", [section]), encoding="utf-8")
    notice(f"wrote {path}")
