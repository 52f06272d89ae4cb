"""Caption files in JSON as tables: COCO's, Karpathy's splits, and plain lists of rows."""

import posixpath
from pathlib import Path

from retrieval.errors import PairsError
from retrieval.pairs.columns import as_id
from retrieval.pairs.tables import Row, Table, Value, decode, parse_json


def read_captions(path: Path) -> tuple[Table, str]:
    """Rows with file_name and captions, one an image, and the name of the layout: coco, karpathy or table.

    Raises:
        PairsError: it is not JSON, or of another layout.
    """
    try:
        value = parse_json(decode(path.read_bytes(), name=path.name))
    except (OSError, ValueError) as error:
        raise PairsError(f"{path.name} is not JSON that can be read ({error})") from error
    table = Table(path.name)
    if isinstance(value, list):
        for number, row in enumerate(value, 1):
            table.add(f"row {number}", row)
        return table, "table"
    images = value.get("images") if isinstance(value, dict) else None
    listed = [row for row in images if isinstance(row, dict)] if isinstance(images, list) else []
    if not listed:
        raise PairsError(f"{path.name} holds no list of images, as captions of COCO's or Karpathy's layout do")
    is_karpathy = "sentences" in listed[0]
    rows = [_karpathy_row(row) for row in listed] if is_karpathy else _coco_rows(listed, value, table)
    for number, row in enumerate(rows, 1):
        table.add(f"image {number}", row)
    return table, "karpathy" if is_karpathy else "coco"


def _coco_rows(images: list[Row], value: dict[str, Value], table: Table) -> list[Row]:
    """COCO's captions: https://cocodataset.org/#format-data."""
    captions: dict[str | None, list[Value]] = {as_id(row.get("id")): [] for row in images}
    for number, note in enumerate(value.get("annotations") or [], 1):
        known = captions.get(as_id(note.get("image_id"))) if isinstance(note, dict) else None
        if known is None:
            table.refuse(f"annotation {number}", "belongs to no image of the list")
        else:
            known.append(note.get("caption"))
    return [row | {"file_name": row.get("file_name"), "captions": captions[as_id(row.get("id"))]} for row in images]


def _karpathy_row(image: Row) -> Row:
    """Karpathy's splits of COCO and Flickr30k: https://cs.stanford.edu/people/karpathy/deepimagesent/."""
    row = {name: value for name, value in image.items() if name not in {"sentences", "sentids", "filename", "filepath"}}
    sentences = image.get("sentences")
    captions = [note.get("raw") for note in sentences if isinstance(note, dict)] if isinstance(sentences, list) else []
    name = posixpath.join(str(image.get("filepath") or ""), str(image.get("filename") or ""))
    return row | {"file_name": name, "captions": captions}
