"""Readers of the layouts that image-text pairs come in: folders of pictures, tables, caption JSON and others."""

import os
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import ColumnError, ImageError, PairsError
from retrieval.images.sources import ImageSource, detect_format, read_head
from retrieval.pairs.captions_json import read_captions
from retrieval.pairs.columns import Record, describe, texts
from retrieval.pairs.feeds.xml import read_xml
from retrieval.pairs.image_folder import PICTURE_SUFFIXES, ImageFolder, walk
from retrieval.pairs.table_schemas import GOOGLE, PLAIN, understand
from retrieval.pairs.tables import TABLE_SUFFIXES, Row, Table, decode, parse_json, read_table
from retrieval.pairs.webdataset import add_shard

if TYPE_CHECKING:
    from retrieval.pairs import Collector

ACCEPTED = (
    "accepted are a folder of images (with .txt files, metadata.jsonl or metadata.csv, or alone), a CSV, TSV, JSONL or "
    "Parquet file with an image column, a Google Merchant feed (XML, TSV or CSV), a Shopify export of products (CSV), "
    "a COCO or Karpathy captions JSON, and WebDataset .tar shards"
)
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_ITSELF = "is not an image; to read pairs from it, give the file itself and not its folder"
_NO_COLUMNS = "{} is no table whose columns could be mapped, such as a CSV, TSV, XML, JSONL or Parquet file"
_MAX_TEXT = 2**20  # bytes of a caption file: a larger one is something else


def read(
    path: Path, collector: "Collector", *, images: Path | None, fields: Mapping[str, str] | None = None
) -> tuple[Path, str]:
    """Read a source into the collector; fields are the columns of a table by what they are to be.

    Returns:
        The folder that the pictures' names are relative to, and the name of the layout.

    Raises:
        ColumnError: a field names a column that is not there.
        PairsError: it is no source of pairs.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix in {*TABLE_SUFFIXES, ".xml"}:
        return _read_table(path, collector, images=images, fields=fields)
    if path.is_file() and suffix == ".json":
        return _read_captions(path, collector, images=images, fields=fields)
    if fields:
        raise ColumnError(_NO_COLUMNS.format(path.name))
    if path.is_dir():
        return _read_folder(path, collector, images)
    if path.is_file() and suffix == ".tar":
        add_shard(path, path.name, collector)
        return path.parent, "webdataset"
    unpacking = "unpack it first; " if suffix in {".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst"} else ""
    raise PairsError(f"{path.name} is no source of pairs: {unpacking}{ACCEPTED}")


def _read_folder(root: Path, collector: "Collector", images: Path | None) -> tuple[Path, str]:
    top = [root / name for name in _METADATA if (root / name).is_file()][:1]
    files, others = ([], []) if top else walk(root)
    named = top or [root / name for name in files if posixpath.basename(name) in _METADATA]
    if named:
        return _read_tables(named, root, collector, images=images), "metadata"
    by_suffix = {
        suffix: [root / name for name in files if name.lower().endswith(suffix)] for suffix in (".tar", ".parquet")
    }
    has_pictures = any(_suffix(name) in PICTURE_SUFFIXES for name in files)
    if by_suffix[".tar"] and not has_pictures:
        for shard in by_suffix[".tar"]:
            add_shard(shard, shard.relative_to(root).as_posix(), collector)
        return root, "webdataset"
    if by_suffix[".parquet"] and not has_pictures:
        return _read_tables(by_suffix[".parquet"], root, collector, images=images), "table"
    if images is not None:
        raise PairsError(f"{root} holds its pictures itself; a folder of images goes with a table or a captions JSON")
    for name, reason in others:
        collector.skip(name, reason, hides=name.endswith("/"))
    return root, _read_pictures(root, files, collector)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _read_pictures(root: Path, files: list[str], collector: "Collector") -> str:
    """Pictures and the .txt and .json files of the same name; returns the name of the layout."""
    beside: dict[str, dict[str, str]] = {".txt": {}, ".json": {}}
    pictures = []
    for name in files:
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in beside:
            beside[suffix.lower()][stem] = name
        elif suffix.lower() in PICTURE_SUFFIXES or _is_picture(root, name, collector):
            pictures.append(name)
    used: set[str] = set()
    for name in pictures:
        found = {suffix: known.get(name) or known.get(posixpath.splitext(name)[0]) for suffix, known in beside.items()}
        used.update(path for path in found.values() if path)
        lines = _read_text(root, found[".txt"], collector).splitlines()
        identity, captions, attributes = describe(_read_row(root, found[".json"], collector))
        image = ImageSource(Path(f"{root}{os.sep}{name}"), name)
        collector.add(image, captions=texts(lines) or captions, attributes=attributes, id=identity)
    for known in beside.values():
        for name in sorted(set(known.values()) - used):
            collector.skip(
                name, _ITSELF if name.lower().endswith(".json") else "has no image of the same name beside it"
            )
    return "captioned folder" if used else "folder"


def _is_picture(root: Path, name: str, collector: "Collector") -> bool:
    """Whether a file of another suffix is a picture by its first bytes; what it is instead is noted."""
    try:
        detect_format(read_head(root / name, 1024))
    except ImageError as error:
        collector.skip(name, _ITSELF if _suffix(name) in TABLE_SUFFIXES else str(error))
        return False
    return True


def _read_text(root: Path, name: str | None, collector: "Collector") -> str:
    """Text of a caption file; empty where there is none or it cannot be read, which is noted."""
    if name is None:
        return ""
    try:
        data = read_head(root / name, _MAX_TEXT + 1)
        if len(data) <= _MAX_TEXT:
            return decode(data, name="the text")
        collector.skip(name, f"has more than {_MAX_TEXT:,} bytes, too many for captions")
    except (ImageError, PairsError) as error:
        collector.skip(name, str(error))
    return ""


def _read_row(root: Path, name: str | None, collector: "Collector") -> Row:
    """Object of a JSON file beside a picture; empty where there is none."""
    text = _read_text(root, name, collector)
    try:
        value = parse_json(text) if text else {}
    except ValueError as error:
        collector.skip(name or "", f"is not JSON ({error})")
        return {}
    return value if isinstance(value, dict) else {}


def _read_table(
    path: Path, collector: "Collector", *, images: Path | None, fields: Mapping[str, str] | None
) -> tuple[Path, str]:
    """Rows of one table, which may be a shop's feed."""
    is_xml = path.suffix.lower() == ".xml"
    table = read_xml(path) if is_xml else read_table(path)
    kind = GOOGLE if is_xml else PLAIN if table.packed else None
    found, layout = understand(table, fields, feed=kind)
    rows = _placed(found, table, label=path.name, collector=collector)
    folder = _image_folder([path.parent, path.parent / "images"], rows, images=images)
    _add_rows(rows, folder, collector, packed=path if table.packed else None)
    return folder.root, layout


def _read_tables(paths: list[Path], root: Path, collector: "Collector", *, images: Path | None) -> Path:
    """Rows of each table; returns the folder that names are relative to."""
    folder = None
    for path in paths:
        table = read_table(path)
        inner = path.parent.relative_to(root).as_posix() if path.parent != root else ""
        rows = _rows(table, posixpath.join(inner, path.name), collector)
        folder = folder or _image_folder([root, root / "images"], rows, images=images, inner=inner)
        _add_rows(rows, folder, collector, inner=inner, packed=path if table.packed else None)
    return folder.root if folder else root


def _read_captions(
    path: Path, collector: "Collector", *, images: Path | None, fields: Mapping[str, str] | None
) -> tuple[Path, str]:
    table, layout = read_captions(path)
    if fields and layout != "table":
        raise ColumnError(_NO_COLUMNS.format(path.name))
    found, kind = understand(table, fields, feed=None if layout == "table" else PLAIN)
    rows = _placed(found, table, label=path.name, collector=collector)
    split = path.stem.rpartition("_")[2]  # annotations/captions_val2017.json goes with val2017/
    beside = [folder / inner for folder in (path.parent, path.parent.parent) for inner in ("", "images", split)]
    folder = _image_folder(beside, rows, images=images)
    _add_rows(rows, folder, collector)
    return folder.root, kind if layout == "table" else layout


def _rows(table: Table, label: str, collector: "Collector") -> list[Record]:
    """Rows of a plain table."""
    return _placed(understand(table, feed=PLAIN)[0], table, label=label, collector=collector)


def _placed(rows: list[Record], table: Table, *, label: str, collector: "Collector") -> list[Record]:
    """The rows, their places named with the file's; what was refused, or is to be told, is noted."""
    for bad in table.bad:
        collector.skip_row(f"{label} {bad.place}", bad.reason, id=bad.id, hides=bad.hides)
    collector.notices += [f"{label}: {notice}" for notice in table.notices]
    return [replace(row, place=f"{label} {row.place}") for row in rows]


def _image_folder(candidates: list[Path], rows: list[Record], *, images: Path | None, inner: str = "") -> ImageFolder:
    """The folder that is asked for, or the first of the candidates that has any of the first pictures."""
    if images is not None:
        return ImageFolder(images, mapped=True)
    for folder in candidates:
        names = (f"{folder}/{inner}/{name}" for row in rows[:100] for name in row.images)
        if any(os.path.exists(name) for name in names):  # noqa: PTH110 (false, where Path raises on odd names)
            return ImageFolder(folder)
    return ImageFolder(candidates[0])


def _add_rows(
    rows: list[Record], folder: ImageFolder, collector: "Collector", *, inner: str = "", packed: Path | None = None
) -> None:
    """Take in the pictures of some rows; packed is the Parquet file that holds them."""
    for row in rows:
        if not row.images:
            collector.skip_row(row.place, "names no image", id=row.id)
        for name in row.images:
            try:
                image = _packed(packed, name, inner=inner) if packed else folder.find(name, inner=inner)
            except ImageError as error:
                collector.skip(name, f"{error} ({row.place})", row=row.place, id=row.id)
            else:
                collector.add(image, captions=row.captions, attributes=row.attributes, id=row.id)


def _packed(path: Path, member: str, *, inner: str) -> ImageSource:
    """A picture inside a Parquet file, named by the number of its row, from 0."""
    return ImageSource(path, posixpath.join(inner, path.name, member.rpartition("#")[2]), member)
