"""`retrieval search`: hits as lines, as JSON, as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.cli.shared import DEVICES, ENGINE, FILE, PATH, SettingsCommand, notice, open_read_only, usage_errors
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from retrieval.catalog import Hit


@click.command(cls=SettingsCommand, settings="retrieval.catalog:SearchRequest", before="as_json")
@click.argument("catalog", type=PATH)
@click.argument("text", nargs=-1)
@click.option("--image", type=FILE, help="Search with this picture.")
@click.option("--weight", "weights", metavar="PART=X", multiple=True, help="Weight of text, image, like, minus, words.")
@click.option(
    "--where", "filters", metavar="EXPR", multiple=True, help='Filter, and-ed: "price<60" color=gray title~red'
)
@click.option("--hybrid", "mode", flag_value="hybrid", help="Rank by words and meaning (default with words).")
@click.option("--words", "mode", flag_value="words", help="Rank by the text's words alone.")
@click.option("--vectors", "mode", flag_value="vectors", help="Rank by the text's meaning alone.")
@click.option("--images", "target", flag_value="images", help="Rank images (default for a mix).")
@click.option("--captions", "target", flag_value="captions", help="Rank captions (default for an image alone).")
@click.option("--items", "target", flag_value="items", help="Rank items, pictures and captions together.")
@click.option("--sort", metavar="NAME", multiple=True, help="Sort by an attribute; -NAME for descending order.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--html", type=FILE, help="Also write the results as one self-contained page.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@ENGINE
def search(
    catalog: Path,
    text: Sequence[str],
    *,
    filters: Sequence[str],
    weights: Sequence[str],
    as_json: bool,
    html: Path | None,
    device: str,
    engine: str | None,
    **request: Any,
) -> None:
    """Search CATALOG by TEXT, by an image, by an item, or by a weighted mix of them; or browse it by --where alone.

    TEXT is searched by its words and its meaning where the catalog has captions or attributes, and by its meaning
    alone with --vectors. An id or a SKU that is typed finds its item.
    """
    words = " ".join(text) or None
    if html is not None and not html.absolute().parent.is_dir():
        raise click.UsageError(f"--html {html}: there is no folder {html.absolute().parent}")
    with usage_errors():
        where = _parse_filters(filters) if filters else None
        parsed_weights = dict(_parse_weight(part) for part in weights)
    with open_read_only(catalog, device=device, engine=engine) as opened, usage_errors():
        hits = opened.search(words, where=where, weights=parsed_weights, **request)
        for hit in hits:
            click.echo(json.dumps(_serialize_hit(hit), ensure_ascii=False) if as_json else _format_hit(hit))
        if hits:
            names = [name.removeprefix("-") for name in (*request["sort"], *filter(None, [request["group"]]))]
            names = [name for name in names if not any(name in hit.attributes for hit in hits)]
        else:
            notice("Nothing found." if where is None else "Nothing found that passes the filter.")
            from retrieval.filters import filter_keys, parse_filter

            names = sorted(filter_keys(parse_filter(where or {})))
        attributes = opened.info()["attributes"] if names else []
        for name in dict.fromkeys(names):  # an unknown name is likely a typing error, which should not look meant
            if name not in attributes:
                known = f"The attributes are {', '.join(attributes)}." if attributes else "There are none."
                notice(f"No item has an attribute {name!r}. {known}")
        if html is not None:
            from retrieval.html import Section, contact_sheet

            section = Section(
                hits=tuple(hits),
                pictures=[opened.image_source(hit.id, hit.position) for hit in hits],
                text=words,
                filters=tuple(filters),
                **{part: request[part] for part in ("image", "like", "minus")},
            )
            html.write_text(contact_sheet("Search results", [section]), encoding="utf-8")
            notice(f"Wrote {html}.")


def _parse_filters(filters: Sequence[str]) -> Mapping[str, Any]:
    from retrieval.filters.expressions import parse_expression

    return {"$and": [parse_expression(one) for one in filters]}


def _parse_weight(text: str) -> tuple[str, float]:
    part, equals, value = text.partition("=")
    try:
        return part.strip(), float(value if equals else "")
    except ValueError:
        raise QueryError(f"--weight {text!r} is not PART=NUMBER, such as text=0.5.") from None


def _format_hit(hit: "Hit") -> str:
    match = " ".join((hit.caption or "").split()) if hit.target == "captions" else hit.image
    return "\t".join((f"{hit.score:.4f}", _escape(hit.id), _escape(match or "")))


def _escape(text: str) -> str:
    """A text without tabs, line ends and control codes, which would break the line or the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _serialize_hit(hit: "Hit") -> Mapping[str, Any]:
    record = asdict(hit)
    del record["position"]
    return {name: value for name, value in record.items() if name not in {"ranks", "variants"} or value}
