"""The layouts whose pairs are the rows of tables: one file, a folder with metadata, a folder of Parquet shards."""

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from retrieval.errors import ImageError, PairsError
from retrieval.images.sources import ImageSource
from retrieval.pairs.image_folder import ImageFolder
from retrieval.pairs.layout import Collector, Layout, Record, Source
from retrieval.pairs.table_schemas import GOOGLE, PLAIN, TableSchema, read_records
from retrieval.pairs.tables import TABLE_SUFFIXES, Table, read_table

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def collect_table(
    table: Table,
    source: Source,
    collector: Collector,
    *,
    folders: Sequence[Path],
    schema: TableSchema | None = None,
    folder: ImageFolder | None = None,
    inner: str = "",
) -> tuple[ImageFolder, str]:
    """Add the pairs of a table to the collector; return the folder of its images, and the name of its layout.

    The images are in `folder`, else in the first of `folders` that holds any of the first ones; their names are
    relative to the folder `inner` in it.
    """
    records, layout = read_records(table, source.columns, schema=schema)
    for record in records:
        if not record.images:
            table.skip(record.place, "names no image", id=record.id, may_hide_items=False)
    for one in table.skipped:
        collector.skip(one.name, one.reason, row=one.row, item_id=one.id, may_hide_items=one.may_hide_items)
    collector.notices += table.notices
    folder = folder or _find_image_folder(records, source, folders=folders, inner=inner)
    for record in records:
        row = f"{table.name} {record.place}"
        for name in record.images:
            try:
                if table.packed:  # named by the number of its row, from 0
                    image = ImageSource(table.path, f"{table.name}/{name.rpartition('#')[2]}", name)
                else:
                    image = folder.find(name, inner=inner)
            except ImageError as error:
                collector.skip(name, f"{error} ({row})", row=row, item_id=record.id, may_hide_items=False)
            else:
                collector.add(image, record)
    return folder, layout


def _find_image_folder(records: list[Record], source: Source, *, folders: Sequence[Path], inner: str) -> ImageFolder:
    if source.images is not None:
        return ImageFolder(source.images, by_basename=True)
    names = [f"{inner}/{name}" for record in records[:100] for name in record.images]
    exists = os.path.exists  # false, where Path raises on odd names
    return ImageFolder(next((one for one in folders if any(exists(f"{one}/{name}") for name in names)), folders[0]))


def _read_tables(paths: Sequence[Path], source: Source, collector: Collector) -> tuple[Path, str]:
    root = source.path if source.path.is_dir() else source.path.parent
    folder, layout = None, ""
    for path in paths:
        is_xml = path.suffix.lower() == ".xml"
        try:
            table = _read_feed(path) if is_xml else read_table(path, name=path.relative_to(root).as_posix())
        except OSError as error:
            raise PairsError(f"{path} cannot be read ({error.strerror or error}).") from error
        folder, layout = collect_table(
            table,
            source,
            collector,
            folders=[root, root / "images"],
            schema=GOOGLE if is_xml else PLAIN if table.packed or source.path.is_dir() else None,
            folder=folder,
            inner=posixpath.dirname(table.name),
        )
    return folder.root if folder else root, layout


def _read_feed(path: Path) -> Table:
    from retrieval.pairs.feeds.xml import read_xml  # loads a parser of XML, which few sources need

    return read_xml(path)


def _metadata_files(source: Source) -> list[Path]:
    if not source.path.is_dir():
        return []
    top = [path for name in _METADATA if (path := source.path / name).is_file()][:1]
    return top or [source.path / name for name in source.listing[0] if posixpath.basename(name) in _METADATA]


TABLE_FILE = Layout(
    "a CSV, TSV, JSONL or Parquet file with an image column, a Google Merchant feed (XML, TSV or CSV) or a Shopify "
    "export of products (CSV)",
    lambda source: source.suffix in {*TABLE_SUFFIXES, ".xml"},
    lambda source, collector: _read_tables([source.path], source, collector),
    has_columns=True,
)
METADATA_FOLDER = Layout(
    "a folder with metadata.jsonl or metadata.csv",
    lambda source: bool(_metadata_files(source)),
    lambda source, collector: (_read_tables(_metadata_files(source), source, collector)[0], "metadata"),
)
PARQUET_FOLDER = Layout(
    "a folder of Parquet files",
    lambda source: bool(source.shards(".parquet")),
    lambda source, collector: _read_tables(source.shards(".parquet"), source, collector),
)
