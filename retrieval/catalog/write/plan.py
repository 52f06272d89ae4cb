"""Drafts: what an item shall be, compared with what the records have, so that only what is new is read or embedded."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from retrieval.errors import ImageError
from retrieval.hashing import content_hash
from retrieval.images.sources import ImageSource
from retrieval.records import Records, StoredCaption, StoredImage, StoredItem
from retrieval.types import Item, attributes_json

CHUNK = 1000  # items that are compared at once

Location = tuple[str, str | None]


@dataclass(slots=True)
class Picture:
    """One picture of a draft.

    Attributes:
        size: Bytes of its file, and `modified` the nanosecond of its last change, as they were before it was read.
        kept: What the records have, where the file looks as it did then.
        hash: Its content, once it was read; or of a vector that was handed in.
        failure: Why it cannot be read.
        settled: Whether nothing more has to be done to give it a slot, or it has failed.
    """

    source: ImageSource | None
    size: int | None = None
    modified: int | None = None
    kept: StoredImage | None = None
    hash: str | None = None
    failure: str | None = None
    settled: bool = False


@dataclass(slots=True)
class Draft:
    """What an item shall be, beside what it is.

    Attributes:
        kept_captions: The stored captions with their vectors, where they stay; else those of `item` are embedded.
        shares_file: Whether a picture of it is a file, or a member of one, that the stored item has too.
    """

    item: Item
    source: int | None
    attributes: str
    stored: StoredItem | None
    pictures: list[Picture] = field(default_factory=list)
    kept_captions: list[StoredCaption] | None = None
    shares_file: bool = False

    @property
    def unread(self) -> list[Picture]:
        """Pictures whose files have to be read."""
        return [picture for picture in self.pictures if not picture.settled]

    @property
    def good(self) -> list[Picture]:
        """Pictures that did not fail."""
        return [picture for picture in self.pictures if picture.failure is None]

    @property
    def same(self) -> bool:
        """Whether the records say all this already, the source aside."""
        stored = self.stored
        return (
            stored is not None
            and len(self.pictures) == len(stored.images)
            and all(picture.kept is image for picture, image in zip(self.pictures, stored.images, strict=True))
            and self.item.captions == tuple(caption.text for caption in stored.captions)
            and self.attributes == stored.attributes
            and self.item.caption_vectors is None
        )


def plan(records: Records, items: Iterable[Item], *, source: int | None) -> list[Draft]:
    """Return a draft of each item. A file of the same path, size and time as recorded counts as the same content.

    That is what makes a build without changes quick. What it misses: a file that is changed without its size and its
    modification time changing. An item's `source` stays as recorded where None is given.
    """
    items = list(items)
    stored = records.items([item.id for item in items])
    places = records.places()
    return [_draft(item, stored.get(item.id), places, source=source) for item in items]


def kept_by_others(records: Records, drafts: Iterable[Draft], *, source: int) -> dict[str, Path]:
    """Return the other source by id of each draft whose id is that of another source's item: IMG_0.png of two folders.

    It is the same item, and goes over to `source`, where both have a picture in common (the file, or its content:
    another table of the same pictures, a copy), or where the other source is no longer there (it was moved).
    """
    drafts = [draft for draft in drafts if draft.stored is not None and draft.stored.source not in (None, source)]
    owners = {draft.item.id: draft.stored.source for draft in drafts if draft.stored is not None}
    places = {number: records.place(number) for number in owners.values() if number is not None}
    there = {number: place for number, place in places.items() if place.exists()}
    return {
        draft.item.id: there[owner]
        for draft in drafts
        if (owner := owners[draft.item.id]) in there and not draft.shares_file and not _shares_content(draft)
    }


def in_chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Return the items in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _draft(item: Item, stored: StoredItem | None, places: Mapping[int, Path], *, source: int | None) -> Draft:
    draft = Draft(
        item=item,
        source=source if source is not None or stored is None else stored.source,
        attributes=attributes_json(item.attributes),
        stored=stored,
    )
    there = _locations(stored.images if stored else (), places)
    draft.shares_file = any((str(image.path), image.member) in there for image in item.images)
    if item.image_vectors is not None:
        draft.pictures = _given(item, there)
    else:
        draft.pictures = [_picture(image, there) for image in item.images]
    return draft


def _shares_content(draft: Draft) -> bool:
    """Whether a picture has the content of a stored one; so has what cannot be read, whose reason its reader names."""
    stored = {image.hash for image in draft.stored.images} if draft.stored else set()
    contents = [content for image in draft.item.images if (content := _content(image))]
    return not contents or not stored.isdisjoint(contents)


def _content(image: ImageSource) -> str | None:
    try:
        return content_hash(image.read())
    except ImageError:
        return None


def _locations(images: Sequence[StoredImage], places: Mapping[int, Path]) -> dict[Location, list[StoredImage]]:
    there: dict[Location, list[StoredImage]] = {}
    for image in images:
        folder = "" if image.folder is None else str(places[image.folder])
        there.setdefault((os.path.join(folder, image.path or ""), image.member), []).append(image)  # noqa: PTH118 - 10× a Path's speed
    return there


def _picture(image: ImageSource, there: dict[Location, list[StoredImage]]) -> Picture:
    try:
        found = os.stat(image.path)  # noqa: PTH116 - the quick way, once for each picture of a build
    except (OSError, ValueError):
        return Picture(image)  # reading it will say what is wrong
    picture = Picture(image, found.st_size, found.st_mtime_ns)
    recorded = there.get((str(image.path), image.member), [])
    stamp = (picture.size, picture.modified)
    picture.kept = _take(recorded, [one for one in recorded if (one.size, one.modified) == stamp])
    picture.settled = picture.kept is not None
    return picture


def _given(item: Item, there: dict[Location, list[StoredImage]]) -> list[Picture]:
    """Pictures whose vectors are handed in: their files are not looked at, the vector is the content."""
    assert item.image_vectors is not None  # noqa: S101 - the caller has looked
    sources: Sequence[ImageSource | None] = item.images or [None] * len(item.image_vectors)
    pictures = [
        Picture(source, hash=f"vector {content_hash(row.tobytes())}", settled=True)
        for source, row in zip(sources, item.image_vectors, strict=True)
    ]
    for picture in pictures:
        location = ("", None) if picture.source is None else (str(picture.source.path), picture.source.member)
        recorded = there.get(location, [])
        picture.kept = _take(recorded, [one for one in recorded if one.hash == picture.hash])
    return pictures


def _take(recorded: list[StoredImage], same: Sequence[StoredImage]) -> StoredImage | None:
    """Return the first that is the same, which then is no other picture's."""
    if not same:
        return None
    recorded.remove(same[0])
    return same[0]
