"""Drafts become items: their vectors get slots, and whole batches are committed."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.write.embed import Reader
from retrieval.catalog.write.plan import Draft, Picture
from retrieval.catalog.write.recording import load_recorded
from retrieval.catalog.write.vector_appender import Shelf
from retrieval.errors import CatalogError
from retrieval.hashing import content_hash
from retrieval.records import Records, StoredCaption, StoredImage, StoredItem
from retrieval.records.database import Database, guarded

if TYPE_CHECKING:
    from index.vectors import Rows


class Ingest:
    """One run of a build or an upsert, by whoever holds the writer's lock.

    Attributes:
        counts: Items so far that were "added", "changed" and "unchanged".
    """

    def __init__(self, database: Database, encoder: CatalogEncoder, *, root: Path) -> None:
        """Begin; pictures under `root` are recorded relative to it."""
        self.counts: Counter[str] = Counter()
        self.reader = Reader(database)
        self._database = database
        self._encoder = encoder
        self._root = root

    def commit(self, drafts: Sequence[Draft]) -> None:
        """Write these drafts as items: the vectors first, then one transaction that names them."""
        if not drafts:
            return
        with self._database.reading() as records:
            images = self._image_shelf(records, drafts)
            captions = self._caption_shelf(records, drafts)
        with guarded(self._database.folder):
            images.write()
            captions.write()
        with self._database.writing() as records:
            images.record(records)
            captions.record(records)
            counts = self._write(records, drafts, images=images, captions=captions)
        self.counts += counts
        self.reader.forget(images.slots)

    # --- slots

    def _image_shelf(self, records: Records, drafts: Sequence[Draft]) -> Shelf:
        """Give a slot to every picture that is new to its item."""
        shelf = Shelf.open(records, "images", fingerprint=self._encoder.space.fingerprint("image"))
        vectors = self.reader.vectors
        for draft in drafts:
            if draft.item.image_vectors is not None:
                vectors.update(
                    (_hash(picture), row) for picture, row in zip(draft.pictures, draft.item.image_vectors, strict=True)
                )
        contents = [_hash(picture) for draft in drafts for picture in draft.good if picture.kept is None]
        shelf.put({content: vectors[content] for content in shelf.find(records, contents)})
        return shelf

    def _caption_shelf(self, records: Records, drafts: Sequence[Draft]) -> Shelf:
        """Give a slot to every caption; those that no item had before are embedded together."""
        shelf = Shelf.open(records, "captions", fingerprint=self._encoder.space.fingerprint("text"))
        texts = {key: text for draft in drafts for key, text in _keyed(draft).items()}
        vectors: dict[str, Rows] = {}
        for draft in drafts:
            if draft.item.caption_vectors is not None:
                vectors.update(zip(_keyed(draft), draft.item.caption_vectors, strict=True))
        new = shelf.find(records, list(texts))
        missing = [key for key in new if key not in vectors]
        if missing:
            rows = load_recorded(self._database, self._encoder, "text").encode_texts([texts[key] for key in missing])
            vectors.update(zip(missing, rows, strict=True))
        shelf.put({key: vectors[key] for key in new})
        return shelf

    # --- records

    def _write(self, records: Records, drafts: Sequence[Draft], *, images: Shelf, captions: Shelf) -> Counter[str]:
        folder = self._database.folder
        roots = {str(path): records.put_place(path) for path in (folder, self._root, folder.parent)}
        counts: Counter[str] = Counter()
        changed: list[tuple[StoredItem, Draft]] = []
        for draft in drafts:
            item = self._item(draft, images=images, captions=captions, roots=roots)
            if draft.stored is not None and _says_the_same(item, draft.stored):
                counts["unchanged"] += 1
                records.update_file_stamps(_stamps(item))
                if item.number is not None and item.source is not None and item.source != draft.stored.source:
                    records.set_source([item.number], item.source)
            else:
                counts["added" if draft.stored is None else "changed"] += 1
                changed.append((item, draft))
        records.put_items([item for item, _ in changed], [draft.item.attributes for _, draft in changed])
        return counts

    def _item(self, draft: Draft, *, images: Shelf, captions: Shelf, roots: Mapping[str, int]) -> StoredItem:
        stored = draft.stored
        return StoredItem(
            id=draft.item.id,
            number=None if stored is None else stored.number,
            attributes=draft.attributes,
            source=draft.source,
            images=[picture.kept or _image(picture, images, roots) for picture in draft.good],
            captions=_captions(draft, captions),
        )


def _captions(draft: Draft, captions: Shelf) -> list[StoredCaption]:
    if draft.kept_captions is not None:
        return draft.kept_captions
    return [StoredCaption(text, captions.slots[key]) for key, text in _keyed(draft).items()]


def _hash(picture: Picture) -> str:
    if picture.hash is None:
        raise CatalogError(f"{picture.source} was not read")  # a mistake of ours
    return picture.hash


def _image(picture: Picture, images: Shelf, roots: Mapping[str, int]) -> StoredImage:
    """Return what is recorded of a picture: its path relative to the first of the roots that it is under."""
    content = _hash(picture)
    slot = images.slots[content]
    if picture.source is None:
        return StoredImage(None, None, None, None, content, None, None, slot)
    path = str(picture.source.path)
    root = next((root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)), None)
    return StoredImage(
        folder=None if root is None else roots[root],
        path=path if root is None else os.path.relpath(path, root),
        member=picture.source.member,
        name=picture.source.name,
        hash=content,
        size=picture.size,
        modified=picture.modified,
        slot=slot,
    )


def _keyed(draft: Draft) -> dict[str, str]:
    """Return the captions that need vectors by what these are made of: the text, or a vector that was handed in."""
    captions, vectors = draft.item.captions, draft.item.caption_vectors
    if draft.kept_captions is not None:
        return {}
    if vectors is None:
        return {content_hash(text.encode()): text for text in captions}
    return {
        f"vector {content_hash(text.encode() + row.tobytes())}": text
        for text, row in zip(captions, vectors, strict=True)
    }


def _says_the_same(item: StoredItem, stored: StoredItem) -> bool:
    """Whether nothing changed but the times of files with equal contents, or the source."""
    return (
        [_content(image) for image in item.images] == [_content(image) for image in stored.images]
        and item.captions == stored.captions
        and item.attributes == stored.attributes
    )


def _content(image: StoredImage) -> tuple[object, ...]:
    return (image.folder, image.path, image.member, image.hash, image.slot)


def _stamps(item: StoredItem) -> list[tuple[int, int, int | None, int | None]]:
    return [
        (item.number, position, image.size, image.modified)
        for position, image in enumerate(item.images)
        if item.number is not None
    ]
