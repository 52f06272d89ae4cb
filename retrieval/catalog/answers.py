"""From what a search found to hits that say something: only the records of these few are read."""

import json
from collections.abc import Sequence
from pathlib import Path

from retrieval.catalog.sides import Found
from retrieval.images.sources import ImageSource
from retrieval.records import Records, StoredImage
from retrieval.records.items import Hit, Target


def hits_of(records: Records, found: Sequence[Found], target: Target) -> list[Hit]:
    """Return the hits of these entries, best first."""
    named = records.names_of(sorted({one.item for one in found}))
    return [_hit(records, one, named[one.item], rank=rank, target=target) for rank, one in enumerate(found, start=1)]


def sources_of(records: Records, name: str) -> list[ImageSource]:
    """Return where the pictures of an item are; none for an unknown item."""
    images = records.stored([name]).values()
    sources = [_source(records, image) for item in images for image in item.images]
    return [source for source in sources if source is not None]


def shown(source: ImageSource) -> str:
    """Return the path of a file, or of a member of a container as if that were a folder."""
    if source.member is None:
        return str(source.path)
    _, _, member = source.name.rpartition(source.path.name + "/")
    return f"{source.path}/{member}"


def _hit(records: Records, found: Found, named: tuple[str, str], *, rank: int, target: Target) -> Hit:
    name, attributes = named
    source = _source(records, records.image(found.item, found.position if target == "images" else 0))
    return Hit(
        rank=rank,
        score=found.score,
        id=name,
        image=None if source is None else shown(source),
        caption=records.caption(found.item, found.position if target == "captions" else 0),
        attributes=json.loads(attributes),
        target=target,
    )


def _source(records: Records, image: StoredImage | None) -> ImageSource | None:
    if image is None or image.path is None:
        return None
    folder = Path("/") if image.folder is None else records.place(image.folder)
    return ImageSource(path=folder / image.path, name=image.name or image.path, member=image.member)
