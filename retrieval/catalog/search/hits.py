"""Hits and items for people, from the records of just these few."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index.vectors import Rows
from retrieval.catalog.ranking import Ranking
from retrieval.errors import CatalogError
from retrieval.images.sources import ImageSource
from retrieval.records import Records, StoredImage
from retrieval.records.database import Database
from retrieval.records.state import SIDES
from retrieval.records.vector_store import map_rows, vector_path
from retrieval.types import Hit, SideName, Target


def read_hits(
    records: Records,
    page: Ranking,
    target: Target,
    *,
    offset: int,
    ranks: Mapping[int, Mapping[str, int]],
    variants: Sequence[int | None],
) -> list[Hit]:
    """Return the hits of a page of a ranking; the rank of the first one is `offset` + 1.

    Each has the picture, or the caption, that was found, and of the other kind the item's first one.
    """
    items = records.items_by_number(set(page.item.tolist()))
    columns = zip(page.item.tolist(), page.position.tolist(), page.score.tolist(), variants, strict=True)
    hits = []
    for rank, (number, position, score, group_size) in enumerate(columns, start=offset + 1):
        item = items[number]
        image, caption = (0, position) if target == "captions" else (position, 0)
        hits.append(
            Hit(
                rank=rank,
                score=score,
                id=item.id,
                image=format_path(_source(records, item.images[image])),
                caption=item.captions[caption].text if item.captions else None,
                attributes=json.loads(item.attributes),
                target=target,
                position=image,
                ranks=ranks.get(number, {}),
                variants=group_size,
            )
        )
    return hits


def read_items(database: Database, ids: Sequence[str], *, vectors: bool) -> dict[str, dict[str, Any]]:
    """Return the items of these ids, by id, without those that do not exist.

    Raises:
        CatalogError: the file of vectors is missing.
    """
    missing = None
    while True:
        with database.reading() as records:
            try:
                return _read_items(records, ids, vectors=vectors)
            except FileNotFoundError as error:  # compacted away, unless the next records name it too
                if error.filename == missing:
                    raise CatalogError(f"The vectors {missing} are missing: put the file back from a copy.") from error
                missing = error.filename


def _read_items(records: Records, ids: Sequence[str], *, vectors: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    images, captions = (_map_side(records, side) if vectors else None for side in SIDES)
    for item in records.items(ids).values():
        found[item.id] = {
            "id": item.id,
            "images": [format_path(_source(records, image)) for image in item.images],
            "captions": [caption.text for caption in item.captions],
            "attributes": json.loads(item.attributes),
        }
        if images is not None and captions is not None:
            found[item.id]["image_vectors"] = np.array(images[[image.slot for image in item.images]])
            found[item.id]["caption_vectors"] = np.array(captions[[caption.slot for caption in item.captions]])
    return found


def _map_side(records: Records, side: SideName) -> Rows:
    state = records.slots.side(side)
    path = vector_path(records.folder, side, state.generation)
    return map_rows(path, count=state.rows, dimension=records.meta("dimension") or 1)


def read_image_sources(records: Records, name: str) -> list[ImageSource | None]:
    """Return where the pictures of the item `name` are, None for one with a vector alone; an empty list without it."""
    return [_source(records, image) for item in records.items([name]).values() for image in item.images]


def format_path(source: ImageSource | None) -> str | None:
    """Return the path of a file, or of a member of a container as if that were a folder; None without a source."""
    if source is None or source.member is None:
        return None if source is None else str(source.path)
    _, _, member = source.name.rpartition(source.path.name + "/")
    return f"{source.path}/{member}"


def _source(records: Records, image: StoredImage | None) -> ImageSource | None:
    if image is None or image.path is None:
        return None
    folder = Path("/") if image.folder is None else records.place(image.folder)
    return ImageSource(path=folder / image.path, name=image.name or image.path, member=image.member)
