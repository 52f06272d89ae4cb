"""The layout of a JSON file of captions: COCO's, Karpathy's splits, or a plain list of rows."""

import posixpath
from pathlib import Path

from retrieval.errors import PairsError
from retrieval.pairs.columns import parse_id
from retrieval.pairs.layout import Collector, Layout, Source
from retrieval.pairs.layouts.tables import collect_table
from retrieval.pairs.table_schemas import PLAIN
from retrieval.pairs.tables import Row, Table, Value, decode, parse_json


def _read_captions(source: Source, collector: Collector) -> tuple[Path, str]:
    path = source.path
    try:
        value = parse_json(decode(path.read_bytes(), name=path.name))
    except (OSError, ValueError) as error:
        raise PairsError(f"{path.name} is not JSON that can be read ({error}).") from error
    table, layout, rows = Table(path.name), "", value
    if not isinstance(value, list):
        images = value.get("images") if isinstance(value, dict) else None
        entries = [row for row in images if isinstance(row, dict)] if isinstance(images, list) else []
        if not entries:
            raise PairsError(f"{path.name} holds no list of images, as captions in COCO's or Karpathy's layout do.")
        layout = "karpathy" if "sentences" in entries[0] else "coco"
        rows = map(_karpathy_row, entries) if layout == "karpathy" else _coco_rows(entries, value, table)
        if source.columns:
            raise source.unmappable()
    for number, row in enumerate(rows, 1):
        table.add(f"{'image' if layout else 'row'} {number}", row)
    split = path.stem.rpartition("_")[2]  # annotations/captions_val2017.json goes with val2017/
    folders = [folder / inner for folder in (path.parent, path.parent.parent) for inner in ("", "images", split)]
    folder, kind = collect_table(table, source, collector, folders=folders, schema=PLAIN if layout else None)
    return folder.root, layout or kind


def _coco_rows(images: list[Row], value: dict[str, Value], table: Table) -> list[Row]:
    """COCO's captions: https://cocodataset.org/#format-data."""
    captions: dict[str | None, list[Value]] = {parse_id(row.get("id")): [] for row in images}
    for number, note in enumerate(value.get("annotations") or [], 1):
        own = captions.get(parse_id(note.get("image_id"))) if isinstance(note, dict) else None
        if own is None:
            table.skip(f"annotation {number}", "belongs to no image of the list", may_hide_items=False)
        else:
            own.append(note.get("caption"))
    return [row | {"file_name": row.get("file_name"), "captions": captions[parse_id(row.get("id"))]} for row in images]


def _karpathy_row(image: Row) -> Row:
    """Karpathy's splits of COCO and Flickr30k: https://cs.stanford.edu/people/karpathy/deepimagesent/."""
    row = {name: value for name, value in image.items() if name not in {"sentences", "sentids", "filename", "filepath"}}
    sentences = image.get("sentences")
    captions = [note.get("raw") for note in sentences if isinstance(note, dict)] if isinstance(sentences, list) else []
    name = posixpath.join(str(image.get("filepath") or ""), str(image.get("filename") or ""))
    return row | {"file_name": name, "captions": captions}


CAPTIONS_JSON = Layout(
    "a COCO or Karpathy captions JSON, or a JSON list of rows",
    lambda source: source.suffix == ".json",
    _read_captions,
    has_columns=True,
)
