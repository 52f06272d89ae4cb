"""`retrieval build`: sync a catalog with a source of pairs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval.cli.shared import (
    DEVICES,
    ENGINE,
    FILE,
    FOLDER,
    INDEX_KINDS,
    PATH,
    STARTER_NOTICE,
    interruptible,
    notice,
    notice_skipped,
    progress_bar,
    usage_errors,
)
from retrieval.errors import CatalogLockedError, ColumnError

if TYPE_CHECKING:
    from retrieval.catalog import Catalog, SyncReport
    from retrieval.pairs import Pairs, Skipped


@click.command()
@click.argument("pairs", type=PATH)
@click.argument("catalog", type=PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder of a new catalog: starter, a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--images", type=FOLDER, help="Folder that holds the images of PAIRS.")
@click.option(
    "--map",
    "fields",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="Column of PAIRS for id, image, title, description or any attribute; FIELD= drops one. Repeatable.",
)
@click.option("--report", type=FILE, help="Write every skipped row and image to a CSV, with the reason.")
@click.option(
    "--index", type=INDEX_KINDS, help="Kind of index; auto chooses by size and memory, and prints its choice."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8"]),
    help="Precision of a new catalog: int8 embeds pictures faster on a CPU; what it costs is shown.",
)
@click.option("--force", is_flag=True, help="Accept int8 even where it finds other pictures than float32.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@ENGINE
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be read.")
@click.option("--prune", is_flag=True, help="Allow dropping more than half of this source's items.")
@click.option("--restore", is_flag=True, help="Restore items that were deleted by id.")
def build(
    pairs: Path,
    catalog: Path,
    *,
    model: str | None,
    images: Path | None,
    fields: Sequence[str],
    report: Path | None,
    index: str | None,
    precision: str | None,
    force: bool,
    device: str,
    engine: str | None,
    strict: bool,
    prune: bool,
    restore: bool,
) -> None:
    """Sync CATALOG with PAIRS: add new items, update changed ones, drop those that are gone."""
    from retrieval.catalog import Catalog, is_catalog
    from retrieval.encoder import STARTER, load_encoder
    from retrieval.pairs import read_pairs
    from retrieval.records.database import is_new

    if is_catalog(pairs):
        raise click.UsageError(f"{pairs} is a catalog, not a source of pairs. Write: retrieval build PAIRS CATALOG.")
    _check_report(report, pairs)
    with usage_errors():
        source = read_pairs(pairs, images=images, map=_parse_map(fields), empty=prune)
    _write_skip_report(report, source, source.skipped)
    notice_skipped(source.skipped, report)
    for message in source.notices:
        notice(message)
    if model is None and is_new(catalog):
        notice(STARTER_NOTICE)
        model = STARTER
    encoder = None if model is None else load_encoder(model, device=device, engine=engine, export=True)
    open_catalog = partial(Catalog.open, catalog, encoder=encoder, device=device, engine=engine, export=True)
    if precision is not None:
        _set_precision(catalog, open_catalog, source, to=precision, force=force)
    with open_catalog() as opened:
        with interruptible("Committed batches are kept. Run it again to continue."), progress_bar("items") as progress:
            synced = opened.build(source, index=index, strict=strict, prune=prune, restore=restore, progress=progress)
        _write_skip_report(report, source, synced.skipped)
        notice_skipped(synced.skipped[len(source.skipped) :], report)
        _notice_kept(synced)
        notice(opened.info()["index"])
    counts = [f"{name} {getattr(synced, name)}" for name in ("added", "changed", "dropped", "unchanged")]
    click.echo(", ".join(counts + ([f"skipped {len(synced.skipped)}"] if synced.skipped else [])))


def _set_precision(path: Path, open_catalog: "Callable[[], Catalog]", source: "Pairs", *, to: str, force: bool) -> None:
    """Set a precision and print what it costs; where it is refused, a catalog that was created for it is removed."""
    from retrieval.records.database import is_new

    existed, was_new = path.exists(), is_new(path)
    others = set(path.iterdir()) if existed else set()
    try:
        with open_catalog() as catalog:
            agreement = catalog.set_precision(source, to, force=force)
    except CatalogLockedError:  # what is there now is of another process
        raise
    except BaseException:
        if was_new and path.is_dir():
            for file in set(path.iterdir()) - others:
                file.unlink()
            if not existed:
                path.rmdir()
        raise
    if agreement is not None:
        notice(agreement.summary())


def _parse_map(fields: Sequence[str]) -> dict[str, str]:
    """Return columns by field; empty for `FIELD=`, which drops it."""
    columns: dict[str, str] = {}
    for text in fields:
        field, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not field:
            raise ColumnError(f"--map {text!r} is not FIELD=COLUMN. Write one such as id=sku.")
        if field in columns:
            raise ColumnError(f"--map names {field} twice: {columns[field]!r} and {column!r}. Name one column.")
        columns[field] = column
    return columns


def _check_report(report: Path | None, pairs: Path) -> None:
    if report is None:
        return
    if not report.absolute().parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no folder {report.absolute().parent}.")
    if report.exists() and pairs.exists() and report.samefile(pairs):
        raise click.UsageError(f"--report {report} is PAIRS itself. Choose another file.")


def _write_skip_report(report: Path | None, source: "Pairs", skipped: "Sequence[Skipped]") -> None:
    from retrieval.pairs.skip_report import write_skip_report

    if report is not None:
        write_skip_report(report, skipped, ids={pair.image.name: pair.id for pair in source})


def _notice_kept(synced: "SyncReport") -> None:
    if synced.kept_deleted:
        notice(f"Items left out because they were deleted by id: {synced.kept_deleted}. Restore them with --restore.")
    if synced.kept_hidden:
        notice(
            f"Items kept although PAIRS no longer names them: {synced.kept_hidden}. "
            "They may be in what could not be read: repair that, or drop them with --prune."
        )
