"""From what a search found to hits that say something: only the records of these few are read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from index.vectors import Rows
from retrieval.catalog.ranking import Ranking
from retrieval.images.sources import ImageSource
from retrieval.records import Records, StoredImage, StoredItem
from retrieval.records.state import SIDES
from retrieval.records.vector_store import map_rows, vector_path
from retrieval.types import Hit, SideName, Target


def read_hits(
    records: Records,
    ranked: Ranking,
    target: Target,
    *,
    after: int,
    ranks: Mapping[int, Mapping[str, int]],
    variants: Sequence[int | None],
) -> list[Hit]:
    """Return the hits of these entries, best first, the first one being of rank `after` + 1."""
    named = records.names_of(sorted(set(ranked.item.tolist())))
    columns = zip(ranked.item.tolist(), ranked.position.tolist(), ranked.score.tolist(), variants, strict=True)
    return [
        _hit(
            records,
            Hit(
                rank=rank,
                score=score,
                id=named[item][0],
                image=None,
                caption=None,
                attributes=json.loads(named[item][1]),
                target=target,
                ranks=ranks.get(item, {}),
                variants=others,
            ),
            item=item,
            position=position,
        )
        for rank, (item, position, score, others) in enumerate(columns, start=after + 1)
    ]


def read_items(records: Records, ids: Sequence[str], *, vectors: bool) -> dict[str, dict[str, Any]]:
    """Return what is known of those of the items that there are, by id.

    Raises:
        FileNotFoundError: the vectors were compacted away after `records` began to read; read again.
    """
    rows = {side: _rows(records, side) for side in SIDES} if vectors else None
    return {
        item.id: _facts(records, item) | ({} if rows is None else _vectors(item, rows))
        for item in records.items(ids).values()
    }


def _facts(records: Records, item: StoredItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "images": [None if source is None else shown(source) for source in _sources(records, item)],
        "captions": [caption.text for caption in item.captions],
        "attributes": json.loads(item.attributes),
    }


def _rows(records: Records, side: SideName) -> Rows:
    state = records.slots.side(side)
    path = vector_path(records.folder, side, state.generation)
    return map_rows(path, count=state.rows, dimension=records.meta("dimension") or 1)


def _vectors(item: StoredItem, rows: Mapping[SideName, Rows]) -> dict[str, Rows]:
    return {
        "image_vectors": np.array(rows["images"][[image.slot for image in item.images]]),
        "caption_vectors": np.array(rows["captions"][[caption.slot for caption in item.captions]]),
    }


def read_image_sources(records: Records, name: str) -> list[ImageSource | None]:
    """Return where the pictures of an item are, None for one of which only the vector is known; no item has none."""
    return [source for item in records.items([name]).values() for source in _sources(records, item)]


def _sources(records: Records, item: StoredItem) -> list[ImageSource | None]:
    return [_source(records, image) for image in item.images]


def shown(source: ImageSource) -> str:
    """Return the path of a file, or of a member of a container as if that were a folder."""
    if source.member is None:
        return str(source.path)
    _, _, member = source.name.rpartition(source.path.name + "/")
    return f"{source.path}/{member}"


def _hit(records: Records, hit: Hit, *, item: int, position: int) -> Hit:
    """Return the hit with its picture and its caption: the found one, and of the other kind the item's first."""
    place = 0 if hit.target == "captions" else position
    source = _source(records, records.image(item, place))
    return replace(
        hit,
        image=None if source is None else shown(source),
        position=place,
        caption=records.caption(item, position if hit.target == "captions" else 0),
    )


def _source(records: Records, image: StoredImage | None) -> ImageSource | None:
    if image is None or image.path is None:
        return None
    folder = Path("/") if image.folder is None else records.place(image.folder)
    return ImageSource(path=folder / image.path, name=image.name or image.path, member=image.member)
