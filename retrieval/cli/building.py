"""`retrieval build`: a catalog comes to hold what a source of pairs holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval.cli.shared import (
    DEVICES,
    FILE,
    FOLDER,
    INDEX_KINDS,
    PATH,
    STARTER_NOTICE,
    bar,
    interruptible,
    notice,
    notice_skipped,
    usage,
)
from retrieval.errors import ColumnError

if TYPE_CHECKING:
    from retrieval.catalog import SyncReport
    from retrieval.pairs import Pairs, Skipped


@click.command()
@click.argument("pairs", type=PATH)
@click.argument("catalog", type=PATH)
@click.option(
    "--model", metavar="NAME", help="Encoder of a new catalog: starter, a run folder, name/tag, or hf-hub:NAME."
)
@click.option("--images", type=FOLDER, help="Folder that holds the images which PAIRS names.")
@click.option(
    "--map",
    "fields",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="Column of PAIRS for id, image, title, description or any attribute; FIELD= drops one. Repeat it.",
)
@click.option("--report", type=FILE, help="Write every skipped row and picture to a CSV, with the reason.")
@click.option(
    "--index", type=INDEX_KINDS, help="Kind of index; auto picks by count and memory, and says what it picked."
)
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option("--strict", is_flag=True, help="Stop at the first file that cannot be read.")
@click.option("--prune", is_flag=True, help="Let more than half of this source's items be dropped.")
@click.option("--restore", is_flag=True, help="Take back items that were deleted by id.")
def build(
    pairs: Path,
    catalog: Path,
    *,
    model: str | None,
    images: Path | None,
    fields: Sequence[str],
    report: Path | None,
    index: str | None,
    device: str,
    strict: bool,
    prune: bool,
    restore: bool,
) -> None:
    """Make CATALOG hold what PAIRS holds: add what is new, change what changed, drop what is gone."""
    from retrieval.catalog import Catalog, is_catalog
    from retrieval.encoder import STARTER, load_encoder
    from retrieval.pairs import read_pairs
    from retrieval.records.database import is_new

    if is_catalog(pairs):
        raise click.UsageError(f"{pairs} is a catalog, not a source of pairs: build PAIRS CATALOG.")
    _check_report(report, pairs)
    with usage():
        source = read_pairs(pairs, images=images, map=_mapped(fields), empty=prune)
    _write_skip_report(report, source, source.skipped)
    notice_skipped(source.skipped, report)
    for told in source.notices:
        notice(told)
    if model is None and is_new(catalog):
        notice(STARTER_NOTICE)
        model = STARTER
    encoder = None if model is None else load_encoder(model, device=device)
    with Catalog.open(catalog, encoder=encoder, device=device) as opened:
        with interruptible("Whole batches are kept: run it again to go on."), bar("items") as progress:
            synced = opened.build(source, index=index, strict=strict, prune=prune, restore=restore, progress=progress)
        _write_skip_report(report, source, synced.skipped)
        _notice_build(synced, told=len(source.skipped), report=report)
        notice(opened.info()["index"])
    click.echo(_summary(synced))


def _mapped(fields: Sequence[str]) -> dict[str, str]:
    """Columns by field; `FIELD=` has an empty one."""
    found: dict[str, str] = {}
    for text in fields:
        field, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not field:
            raise ColumnError(f"--map {text!r} is not FIELD=COLUMN, such as id=sku")
        if field in found:
            raise ColumnError(f"--map names {field} twice: {found[field]!r} and {column!r}")
        found[field] = column
    return found


def _check_report(report: Path | None, pairs: Path) -> None:
    if report is None:
        return
    if not report.absolute().parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no folder {report.absolute().parent}")
    if report.exists() and pairs.exists() and report.samefile(pairs):
        raise click.UsageError(f"--report {report} is PAIRS itself, which it would replace")


def _write_skip_report(report: Path | None, source: "Pairs", skipped: "Sequence[Skipped]") -> None:
    from retrieval.pairs.skip_report import write_skip_report

    if report is not None:
        write_skip_report(report, skipped, ids={pair.image.name: pair.id for pair in source})


def _summary(report: "SyncReport") -> str:
    text = f"added {report.added}, changed {report.changed}, dropped {report.dropped}, unchanged {report.unchanged}"
    return text + (f", skipped {len(report.skipped)}" if report.skipped else "")


def _notice_build(synced: "SyncReport", *, told: int, report: Path | None) -> None:
    notice_skipped(synced.skipped[told:], report)
    if synced.kept_deleted:
        notice(f"{synced.kept_deleted} deleted before stay deleted; --restore takes them back")
    if synced.kept_hidden:
        notice(
            f"{synced.kept_hidden} that PAIRS no longer names stay, for they may be in what could not be read; "
            f"mend that, or drop them with --prune"
        )
