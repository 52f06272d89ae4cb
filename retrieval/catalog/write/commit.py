"""Commit planned items in whole batches: their vectors are appended and synced, then one transaction names them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from index.vectors import Rows
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.write.plan import PlannedImage, PlannedItem
from retrieval.records import Records, StoredCaption, StoredImage, StoredItem
from retrieval.records.database import Database, report_disk_errors
from retrieval.records.state import CatalogState
from retrieval.records.vector_store import append_rows, map_rows, vector_path
from retrieval.types import SideName


class VectorAppender:
    """Appends the vectors of one commit to a side; reuses those that are stored already. `slots` are by content hash.

    A dead slot is never used again: when its content comes back, the vector is copied to a new slot.
    """

    def __init__(self, folder: Path, side: SideName, state: CatalogState) -> None:
        """Append behind the vectors of this state."""
        self.slots: dict[str, int] = {}
        self._side: SideName = side
        self._state = state.sides[side]
        self._path = vector_path(folder, side, self._state.generation)
        self._space = state.space
        self._fingerprint = state.space.fingerprint("image" if side == "images" else "text")
        self._rows: dict[str, Rows] = {}  # of the new slots, in order

    def find_new(self, records: Records, contents: Sequence[str]) -> list[str]:
        """Give slots to the contents that were embedded before; return the others, each once."""
        live, dead = records.slots.find_vectors(self._side, contents, fingerprint=self._fingerprint)
        self.slots |= live
        if dead:
            stored = map_rows(self._path, count=self._state.rows, dimension=self._space.dimension or 1)
            self.add({content: np.array(stored[slot]) for content, slot in dead.items()})
        return [content for content in dict.fromkeys(contents) if content not in self.slots]

    def add(self, rows: Mapping[str, Rows]) -> None:
        """Give new slots to contents with these vectors, `(d,)` each."""
        self.slots |= {content: slot for slot, content in enumerate(rows, start=self._state.rows + len(self._rows))}
        self._rows |= rows

    def write(self) -> None:
        """Append the rows to the side's file and sync it; no record names them yet."""
        if self._rows:
            append_rows(self._path, np.stack(list(self._rows.values())), at=self._state.rows)

    def record(self, records: Records) -> None:
        """Name the rows in the records, inside the caller's transaction."""
        if self._rows:
            records.slots.add_vectors(self._side, self._state, list(self._rows), fingerprint=self._fingerprint)


class ItemCommitter:
    """Commits the items of one build or upsert; `counts` those "added", "changed" and "unchanged" so far."""

    def __init__(self, database: Database, encoder: CatalogEncoder, *, root: Path, rows: dict[str, Rows]) -> None:
        """Begin; pictures under `root` are recorded relative to it, `rows` has embedded vectors by content."""
        self.counts: Counter[str] = Counter()
        self._database = database
        self._encoder = encoder
        self._root = root
        self._rows = rows

    def commit(self, items: Sequence[PlannedItem]) -> None:
        """Commit the readable pictures, the captions and the attributes of these items."""
        if not items:
            return
        with self._database.reading() as records:
            state = records.state()
            images = self._append_images(records, state, items)
            captions = self._append_captions(records, state, items)
        with report_disk_errors(self._database.folder):
            images.write()
            captions.write()
        with self._database.writing() as records:
            images.record(records)
            captions.record(records)
            counts = self._put_items(records, items, images=images.slots, captions=captions.slots)
        self.counts += counts
        for content in images.slots:
            self._rows.pop(content, None)

    def _append_images(self, records: Records, state: CatalogState, items: Sequence[PlannedItem]) -> VectorAppender:
        """Give a slot to every picture that is new to its item."""
        appender = VectorAppender(records.folder, "images", state)
        for one in items:
            if one.item.image_vectors is not None:
                self._rows.update(zip((image.content for image in one.images), one.item.image_vectors, strict=True))
        contents = [image.content for one in items for image in one.readable if image.stored is None]
        appender.add({content: self._rows[content] for content in appender.find_new(records, contents)})
        return appender

    def _append_captions(self, records: Records, state: CatalogState, items: Sequence[PlannedItem]) -> VectorAppender:
        """Give a slot to every caption; those that no item had before are embedded together."""
        appender = VectorAppender(records.folder, "captions", state)
        texts: dict[str, str] = {}
        rows: dict[str, Rows] = {}
        for one in items:
            captions = one.new_captions()
            texts |= captions
            if one.item.caption_vectors is not None:
                rows.update(zip(captions, one.item.caption_vectors, strict=True))
        new = appender.find_new(records, list(texts))
        missing = [content for content in new if content not in rows]
        if missing:
            encoder = self._encoder.load_and_record("text")
            embedded = encoder.encode_texts([texts[content] for content in missing])
            rows.update(zip(missing, embedded, strict=True))
        appender.add({content: rows[content] for content in new})
        return appender

    def _put_items(
        self, records: Records, items: Sequence[PlannedItem], *, images: Mapping[str, int], captions: Mapping[str, int]
    ) -> Counter[str]:
        folder = self._database.folder
        roots = {str(path): records.put_place(path) for path in (folder, self._root, folder.parent)}
        counts: Counter[str] = Counter()
        changed: list[tuple[StoredItem, PlannedItem]] = []
        for one in items:
            stored = one.stored
            item = StoredItem(
                id=one.item.id,
                number=None if stored is None else stored.number,
                attributes=one.attributes,
                source=one.source,
                images=[image.stored or _describe_image(image, images, roots) for image in one.readable],
                captions=[StoredCaption(text, captions[content]) for content, text in one.new_captions().items()]
                if one.stored_captions is None
                else one.stored_captions,
            )
            if stored is None or item.number is None or not _is_equal(item, stored):
                counts["added" if stored is None else "changed"] += 1
                changed.append((item, one))
                continue
            counts["unchanged"] += 1
            records.update_file_stamps(item.number, item.images)
            if item.source is not None and item.source != stored.source:
                records.set_source([item.number], item.source)
        records.put_items([item for item, _ in changed], [one.item.attributes for _, one in changed])
        return counts


def _describe_image(image: PlannedImage, slots: Mapping[str, int], roots: Mapping[str, int]) -> StoredImage:
    """Return the record of a picture: its path is relative to the first of the roots that contains it."""
    content, source = image.content, image.source
    if source is None:
        return StoredImage(None, None, None, None, content, None, None, slots[content])
    path = str(source.path)
    root = next((root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)), None)
    return StoredImage(
        folder=None if root is None else roots[root],
        path=path if root is None else os.path.relpath(path, root),
        member=source.member,
        name=source.name,
        hash=content,
        size=image.size,
        modified=image.modified,
        slot=slots[content],
    )


def _is_equal(item: StoredItem, stored: StoredItem) -> bool:
    """Whether at most the times of files with equal contents, or the source, have changed."""
    if (item.captions, item.attributes) != (stored.captions, stored.attributes):
        return False
    before, after = (
        [image._replace(name=None, size=None, modified=None) for image in one.images] for one in (stored, item)
    )
    return before == after
