"""`retrieval delete`, `serve`, `export` and `info`: what is done with a catalog that is there."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from retrieval.cli.shared import DEVICES, FILE, PATH, extra_named, notice, reading
from retrieval.errors import EncoderError, ServiceError

_EXPORTED = 256  # items that are in memory at once
_VECTORS = ("image_vectors", "caption_vectors")


@click.command()
@click.argument("catalog", type=PATH)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def delete(catalog: Path, ids: Sequence[str]) -> None:
    """Delete items of CATALOG by id; they stay deleted until `build --restore`."""
    from retrieval.catalog import Catalog

    with Catalog.open(catalog) as opened:
        count = opened.delete(ids)
    click.echo(f"deleted {count}, not there {len(set(ids)) - count}")


@click.command()
@click.argument("catalog", type=PATH)
@click.option("--host", metavar="ADDRESS", help="Where to listen (127.0.0.1); elsewhere only with keys.")
@click.option("--port", type=click.IntRange(min=0), help="Port (8000); 0 takes a free one.")
@click.option("--read-only", is_flag=True, default=None, help="Take no changes.")
@click.option("--keys", type=FILE, help="File of lines `read KEY` or `write KEY`.")
@click.option("--cors-origin", "cors_origins", multiple=True, metavar="URL", help="Origin whose pages may ask; repeat.")
@click.option("--max-body", type=click.IntRange(min=1), metavar="BYTES", help="Largest request (32 MiB).")
@click.option("--max-pixels", type=click.IntRange(min=1), help="Largest picture (89,478,485).")
@click.option("--max-results", type=click.IntRange(min=1), help="Hits that a search reaches (1000).")
@click.option("--queue", type=click.IntRange(min=1), help="Requests of a kind that may wait (256).")
@click.option("--batch", type=click.IntRange(min=0), help="Searches in one forward pass; 0 measures what pays.")
@click.option("--timeout", type=click.FloatRange(min=1), help="Seconds that a request may take (30).")
@click.option("--stop", type=click.FloatRange(min=1), help="Seconds for requests to end once told to stop (20).")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
def serve(catalog: Path, *, keys: Path | None, device: str, **flags: Any) -> None:
    """Serve CATALOG over HTTP. Flags are also variables: RETRIEVAL_PORT, RETRIEVAL_READ_KEYS, RETRIEVAL_WRITE_KEYS."""
    from retrieval.catalog import Catalog

    with extra_named("serve"):
        from retrieval.server import make_app, read_settings
        from retrieval.server.auth import read_key_file
        from retrieval.server.uvicorn_server import serve as serve_app

    flags["cors_origins"] = flags["cors_origins"] or None
    try:
        if keys is not None:
            flags |= {f"{scope}_keys": found for scope, found in read_key_file(keys).items()}
        settings = read_settings(flags, os.environ)
    except ServiceError as error:
        raise click.UsageError(str(error)) from error
    access = "keys needed" if settings.has_keys else "no keys: open to every program on this machine"
    with Catalog.open(catalog, device=device, read_only=settings.read_only) as opened:
        serve_app(make_app(opened, settings), on_ready=lambda url: notice(f"serving {catalog} at {url} ({access})"))


@click.command()
@click.argument("catalog", type=PATH)
@click.option("--vectors", is_flag=True, help="Also the vectors of pictures and captions.")
def export(catalog: Path, *, vectors: bool) -> None:
    """Write the items of CATALOG as lines of JSON, in the order of their ids, as `Catalog.upsert` takes them."""
    unseen = 0
    with reading(catalog) as opened:
        after = None
        while names := opened.ids(after=after, limit=_EXPORTED):
            found = opened.get(names, vectors=vectors)
            for name in names:
                if name in found:
                    unseen += None in found[name]["images"]
                    click.echo(json.dumps(_exported(found[name]), ensure_ascii=False))
            after = names[-1]
    if unseen and not vectors:
        notice(f"of pictures only the vectors are known in {unseen} of the items: --vectors takes them along")


def _exported(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """An item as JSON values; nothing stands for a picture of which only the vector is known, or for no vectors."""
    vectors = {name: item[name].tolist() for name in _VECTORS if len(item.get(name, ()))}
    facts = {name: value for name, value in item.items() if name not in _VECTORS}
    return {**facts, "images": [path for path in item["images"] if path is not None], **vectors}


@click.command()
@click.argument("thing", metavar="CATALOG|RUN|MODEL")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(thing: str, *, as_json: bool) -> None:
    """Describe a catalog, a run, or a model."""
    described = _describe(thing)
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False))
        return
    width = max(len(name) for name in described)
    for name, value in described.items():
        click.echo(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def _describe(thing: str) -> Mapping[str, Any]:
    from retrieval.catalog import is_catalog
    from retrieval.encoder import describe_encoder

    if not is_catalog(Path(thing)):
        try:
            return describe_encoder(thing)
        except EncoderError as error:
            raise EncoderError(f"{thing} is no catalog; and taken for a model: {error}") from error
    with reading(Path(thing)) as opened:
        return opened.info()
