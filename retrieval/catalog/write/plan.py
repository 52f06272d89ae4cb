"""Plan the items to write: compare each with its record, so that only what is new is read or embedded."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from retrieval.catalog.items import encode_attributes, parse_item
from retrieval.errors import ImageError, ItemError
from retrieval.hashing import content_hash
from retrieval.images.sources import ImageSource
from retrieval.pairs import Skipped
from retrieval.records import Records, StoredCaption, StoredImage, StoredItem
from retrieval.types import Item

_PATCH_FIELDS: Final = frozenset({"id", "images", "captions", "attributes"})

Location = tuple[str, str | None]


@dataclass(slots=True)
class PlannedImage:
    """One picture of a planned item."""

    source: ImageSource | None
    # bytes of its file, and `modified` the nanosecond of its last change, as they were before it was read
    size: int | None = None
    modified: int | None = None
    stored: StoredImage | None = None  # its record, where the file looks as it did when it was recorded
    content: str = ""  # content hash, or the hash of an imported vector; empty until it is read
    failure: str | None = None  # why it cannot be read
    is_read: bool = False  # whether its vector is known by its content, or it has failed


@dataclass(slots=True)
class PlannedItem:
    """An item to write, with its record."""

    item: Item
    source: int | None  # place of the PAIRS source that it comes from
    attributes: str  # as JSON
    stored: StoredItem | None  # its record; None for a new item
    images: list[PlannedImage] = field(default_factory=list)
    # the recorded captions, where a patch keeps them; else those of `item` are embedded
    stored_captions: list[StoredCaption] | None = None
    shares_file: bool = False  # whether the stored item has one of its picture files, or members of containers

    @property
    def unread(self) -> list[PlannedImage]:
        """Pictures whose files have to be read."""
        return [image for image in self.images if not image.is_read]

    @property
    def readable(self) -> list[PlannedImage]:
        """Pictures that did not fail."""
        return [image for image in self.images if image.failure is None]

    @property
    def failures(self) -> list[Skipped]:
        """Pictures that failed, with their reasons."""
        return [
            Skipped(self.item.id if image.source is None else image.source.name, image.failure)
            for image in self.images
            if image.failure is not None
        ]

    @property
    def is_unchanged(self) -> bool:
        """Whether the records say all this already, the source aside."""
        stored = self.stored
        return (
            stored is not None
            and len(self.images) == len(stored.images)
            and all(image.stored is record for image, record in zip(self.images, stored.images, strict=True))
            and self.item.captions == tuple(caption.text for caption in stored.captions)
            and self.attributes == stored.attributes
            and self.item.caption_vectors is None
        )

    def new_captions(self) -> dict[str, str]:
        """Return the captions that need a slot, by content: the hash of the text, or that of its imported vector."""
        captions, vectors = self.item.captions, self.item.caption_vectors
        if self.stored_captions is not None:
            return {}
        if vectors is None:
            return {content_hash(text.encode()): text for text in captions}
        pairs = zip(captions, vectors, strict=True)
        return {f"vector {content_hash(text.encode() + row.tobytes())}": text for text, row in pairs}


def plan_items(records: Records, items: Sequence[Item], *, source: int | None) -> list[PlannedItem]:
    """Return a plan for each item; a `source` of None keeps the recorded one.

    A file of the same path, size and time as recorded counts as unchanged, which makes a build without changes quick. A
    file whose content changes while its size and its modification time do not is missed.
    """
    stored = records.items([item.id for item in items])
    places = records.places()
    return [_plan_item(item, stored.get(item.id), places, source=source) for item in items]


def plan_patches(
    records: Records, changes: Iterable[Mapping[str, Any]], *, root: Path
) -> tuple[list[PlannedItem], list[Skipped]]:
    """Return a plan for each item that changes, and the changes of unknown items; a malformed one is an ItemError."""
    listed = list(changes)
    by_id = {_parse_patch_id(change): change for change in listed}
    if len(by_id) < len(listed):
        raise ItemError("Two changes are of the same item: merge them into one, or patch twice.")
    places, planned = records.places(), []
    stored = records.items(list(by_id))
    for record, change in ((stored[name], change) for name, change in by_id.items() if name in stored):
        one = _plan_item(_patch_item(record, change, root), record, places, source=None)
        if "images" not in change:
            one.images = [PlannedImage(None, stored=image, content=image.hash, is_read=True) for image in record.images]
        if "captions" not in change:
            one.stored_captions = record.captions
        planned.append(one)
    return planned, [Skipped(name, "there is no such item; put the whole item") for name in by_id if name not in stored]


def merge_patch(old: Any, patch: Any) -> Any:
    """Return `old` after a JSON merge patch (RFC 7396): null removes a key, mappings merge, the rest is replaced."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def owned_by_other_sources(records: Records, planned: Iterable[PlannedItem], *, source: int) -> dict[str, Path]:
    """Return, by id, the source of each item that another source owns: IMG_0.png of two folders, say.

    An item moves to `source` where both share a picture (the file, or its content: another table of the same pictures,
    a copy), or where the other source no longer exists (it was moved).
    """
    owners = {
        one.item.id: (one, one.stored.source)
        for one in planned
        if one.stored is not None and one.stored.source not in {None, source}
    }
    existing = {
        number: place for number in {owner for _, owner in owners.values()} if (place := records.place(number)).exists()
    }
    return {
        name: existing[owner]
        for name, (one, owner) in owners.items()
        if owner in existing and not one.shares_file and not _shares_content(one)
    }


def _plan_item(item: Item, stored: StoredItem | None, places: Mapping[int, Path], *, source: int | None) -> PlannedItem:
    recorded = _images_by_location(stored.images if stored else (), places)
    planned = PlannedItem(
        item=item,
        source=source if source is not None or stored is None else stored.source,
        attributes=encode_attributes(item.attributes),
        stored=stored,
        shares_file=any((str(image.path), image.member) in recorded for image in item.images),
    )
    if item.image_vectors is None:
        planned.images = [_plan_image(image, recorded) for image in item.images]
    else:
        sources: Sequence[ImageSource | None] = item.images or [None] * len(item.image_vectors)
        contents = [f"vector {content_hash(row.tobytes())}" for row in item.image_vectors]
        pairs = zip(sources, contents, strict=True)
        planned.images = [_plan_image(image, recorded, content=content) for image, content in pairs]
    return planned


def _shares_content(planned: PlannedItem) -> bool:
    """Whether a picture has the content of a stored one, or none can be read: embedding then reports the reason."""
    stored = {image.hash for image in planned.stored.images} if planned.stored else set()
    contents = set()
    for image in planned.item.images:
        with suppress(ImageError):
            contents.add(content_hash(image.read()))
    return not contents or not stored.isdisjoint(contents)


def _images_by_location(images: Sequence[StoredImage], places: Mapping[int, Path]) -> dict[Location, list[StoredImage]]:
    located: dict[Location, list[StoredImage]] = {}
    for image in images:
        folder = "" if image.folder is None else str(places[image.folder])
        path = os.path.join(folder, image.path or "")  # noqa: PTH118 - 10× a Path's speed
        located.setdefault((path, image.member), []).append(image)
    return located


def _plan_image(
    image: ImageSource | None, recorded: Mapping[Location, list[StoredImage]], *, content: str = ""
) -> PlannedImage:
    """Plan a picture; one with a `content` has an imported vector, and its file is not looked at."""
    location = ("", None) if image is None else (str(image.path), image.member)
    planned = PlannedImage(image, content=content)
    if image is not None and not content:
        try:
            status = os.stat(image.path)  # noqa: PTH116 - the quick way, once for each picture of a build
        except (OSError, ValueError):
            return planned  # reading it will report the reason
        planned.size, planned.modified = status.st_size, status.st_mtime_ns
    candidates, stamp = recorded.get(location, []), (planned.size, planned.modified)
    for stored in candidates:
        if stored.hash == content or (not content and (stored.size, stored.modified) == stamp):
            planned.stored = stored
            candidates.remove(stored)  # it is no other picture's
            break
    planned.is_read = bool(content) or planned.stored is not None
    return planned


def _parse_patch_id(change: Any) -> str:
    if not isinstance(change, Mapping) or not isinstance(change.get("id"), str):
        raise ItemError(f"A change must be a mapping with the id of an item, not {change!r}.")
    if unknown := sorted(map(str, set(change) - _PATCH_FIELDS)):
        raise ItemError(
            f"The change of item {change['id']!r} has unknown fields {unknown}; known are {sorted(_PATCH_FIELDS)}."
        )
    return str(change["id"])


def _patch_item(stored: StoredItem, change: Mapping[str, Any], root: Path) -> Item:
    """Return the item after the change; where that names no pictures, an unused vector stands for them."""
    attributes = change.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise ItemError(f"Item {stored.id!r}: attributes must be a mapping, not {type(attributes).__name__}.")
    fields: dict[str, Any] = {
        "id": stored.id,
        "captions": change.get("captions", [caption.text for caption in stored.captions]),
        "attributes": merge_patch(json.loads(stored.attributes), attributes),
    }
    if "images" in change:
        return parse_item({**fields, "images": change["images"]}, root=root, dimension=None)
    return replace(parse_item({**fields, "image_vectors": [[1.0]]}, root=root, dimension=None), image_vectors=None)
