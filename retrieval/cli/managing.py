"""`retrieval delete`, `serve`, `export` and `info`: use an existing catalog."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from retrieval.cli.shared import DEVICES, ENGINE, FILE, PATH, notice, open_read_only, use_current_names
from retrieval.errors import EncoderError, MissingPackageError, ServiceError
from retrieval.extras import require_extra
from retrieval.server.settings import Settings
from retrieval.settings import settings_options

_PAGE = 256  # items in memory at a time
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


@click.command(context_settings={"auto_envvar_prefix": "RETRIEVAL"})
@click.argument("catalog", type=PATH)
@settings_options(Settings)
@click.option("--keys", type=FILE, help="File of lines `read KEY` or `write KEY`.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@ENGINE
def serve(catalog: Path, *, keys: Path | None, device: str, engine: str | None, **settings: Any) -> None:
    """Serve CATALOG over HTTP.

    Options are also variables: RETRIEVAL_PORT, RETRIEVAL_READ_KEYS, RETRIEVAL_WRITE_KEYS.
    """
    from retrieval.catalog import Catalog

    with require_extra("serve", "Serving"):
        from retrieval.server import make_app
        from retrieval.server.auth import read_key_file
        from retrieval.server.uvicorn_server import serve as serve_app

    values = use_current_names(settings, Settings)
    try:
        if keys is not None:
            values |= {f"{scope}_keys": found for scope, found in read_key_file(keys).items()}
        checked = Settings(**values)
    except ServiceError as error:
        raise click.UsageError(str(error)) from error
    access = "keys required" if checked.has_keys else "no keys: open to every program on this machine"
    with Catalog.open(catalog, device=device, engine=engine, export=True, read_only=checked.read_only) as opened:
        serve_app(make_app(opened, checked), on_ready=lambda url: notice(f"Serving {catalog} at {url} ({access})."))


@click.command()
@click.argument("catalog", type=PATH)
@click.option("--vectors", is_flag=True, help="Include the vectors of images and captions.")
def export(catalog: Path, *, vectors: bool) -> None:
    """Print the items of CATALOG as lines of JSON, in the order of their ids, for `Catalog.upsert`."""
    without_images = 0
    with open_read_only(catalog) as opened:
        after = None
        while names := opened.ids(after=after, limit=_PAGE):
            found = opened.get(names, vectors=vectors)
            for name in names:
                if name in found:
                    without_images += None in found[name]["images"]
                    click.echo(json.dumps(_item_json(found[name]), ensure_ascii=False))
            after = names[-1]
    if without_images and not vectors:
        notice(f"The images of {without_images} items are stored as vectors only. Include them with --vectors.")


def _item_json(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item as JSON values, without images stored as vectors only and without empty vectors."""
    vectors = {name: item[name].tolist() for name in _VECTORS if len(item.get(name, ()))}
    facts = {name: value for name, value in item.items() if name not in _VECTORS}
    return {**facts, "images": [path for path in item["images"] if path is not None], **vectors}


@click.command()
@click.argument("thing", metavar="CATALOG|RUN|MODEL")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(thing: str, *, as_json: bool) -> None:
    """Describe a catalog, a run, or a model."""
    from retrieval.catalog import is_catalog
    from retrieval.encoder import describe_encoder

    if is_catalog(Path(thing)):
        with open_read_only(Path(thing)) as opened:
            described: Mapping[str, Any] = opened.info()
    else:
        try:
            described = describe_encoder(thing)
        except (EncoderError, MissingPackageError) as error:
            raise EncoderError(f"{thing} is not a catalog, and cannot be loaded as a model: {error}") from error
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False))
        return
    width = max(len(name) for name in described)
    for name, value in described.items():
        click.echo(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
