"""Build as a sync: the catalog comes to hold what a PAIRS source holds. Upsert and delete are the same in small.

Every function here is called by the one writer. Batches are committed as they come, so what a crash or Ctrl-C loses is
the batch in hand, and the next build goes on from there.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.write.commit import Ingest
from retrieval.catalog.write.kept_pictures import keep_picture
from retrieval.catalog.write.patches import plan_patches
from retrieval.catalog.write.plan import Draft, in_chunks, kept_by_others, plan
from retrieval.catalog.write.recording import load_recorded
from retrieval.errors import CatalogError, ImageError, ItemError
from retrieval.pairs import Pairs, Skipped
from retrieval.records.database import Database, guarded
from retrieval.records.state import VectorSpace
from retrieval.types import Item, SyncReport, clean_captions, is_storable, item_from, plain_attributes, shown

BATCH_ITEMS = 1024
BATCH_SECONDS = 5.0  # a slow encoder's work is on the disk at least this often

_KEPT = (
    "its id is that of an item of {} with another picture, which stays; give one of them another id, or build the "
    "folder that holds both (once that source is gone, its items are taken over)"
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How far a build may go.

    Attributes:
        prune: More than half of the source's items may be dropped, and any while rows of it cannot be read.
        restore: Ids that were deleted come back.
        strict: The first picture or row that cannot be read is an error.
    """

    prune: bool = False
    restore: bool = False
    strict: bool = False


def build(
    database: Database, encoder: CatalogEncoder, pairs: Pairs, *, options: BuildOptions, progress: Progress | None
) -> SyncReport:
    """Make the catalog hold these pairs; what it holds of other sources stays.

    An item none of whose pictures can be read is left out, and leaves the catalog where it was in it: a catalog that
    was built in one go from the same pairs would not have it. One whose id is that of another source's item, which it
    is not, is left out as well: `kept_by_others` tells them apart.
    """
    run = _Build(database, encoder, pairs, options=options, progress=progress)
    run.check()
    run.sync()
    run.drop()
    return run.report()


def upsert(database: Database, encoder: CatalogEncoder, given: Iterable[Mapping[str, Any] | Item]) -> SyncReport:
    """Add or replace whole items by id, all in one commit; one with a picture that cannot be read is refused alone."""
    root = _root(database)
    kept, skipped = _with_pictures_kept(database, given)
    items = _checked(kept, root, encoder.space.dimension)
    _prepare(database, encoder, items)
    with database.reading() as records:
        drafts = plan(records, items, source=None)
    return _written(database, encoder, drafts, root=root, skipped=skipped)


def patch(database: Database, encoder: CatalogEncoder, given: Iterable[Mapping[str, Any]]) -> SyncReport:
    """Change parts of items, all in one commit; a change of an item that is not there is refused alone."""
    root = _root(database)
    kept, skipped = _with_pictures_kept(database, given)
    with database.reading() as records:
        drafts, unknown = plan_patches(records, kept, root=root)
    if not all(is_storable(draft.item) for draft in drafts):
        raise ItemError("an item's text is not valid Unicode")
    return _written(database, encoder, drafts, root=root, skipped=[*skipped, *unknown])


def _written(
    database: Database, encoder: CatalogEncoder, drafts: Sequence[Draft], *, root: Path, skipped: Sequence[Skipped]
) -> SyncReport:
    ingest = Ingest(database, encoder, root=root)
    new = [draft for draft in drafts if not draft.same]
    if any(draft.unread for draft in new):
        new = list(ingest.reader.read(load_recorded(database, encoder, "image"), new))
    ingest.commit([draft for draft in new if len(draft.good) == len(draft.pictures)])
    failures = [failure for draft in new for failure in _failures(draft)]
    unchanged = ingest.counts["unchanged"] + len(drafts) - len(new)
    return SyncReport(
        ingest.counts["added"], ingest.counts["changed"], unchanged=unchanged, skipped=(*skipped, *failures)
    )


def _with_pictures_kept(
    database: Database, given: Iterable[Mapping[str, Any] | Item]
) -> tuple[list[Any], list[Skipped]]:
    """Put pictures that come as bytes into files of the catalog; an item with one that is no picture is left out."""
    items: list[Any] = []
    skipped = []
    for one in given:
        if not isinstance(one, Mapping):  # an Item has no bytes
            items.append(one)
            continue
        try:
            items.append(_with_files(database, one))
        except ImageError as error:
            skipped.append(Skipped(shown(str(one.get("id"))), f"a picture {error}"))
    return items, skipped


def _with_files(database: Database, given: Mapping[str, Any]) -> Mapping[str, Any]:
    images = given.get("images")
    if not isinstance(images, list | tuple) or not any(isinstance(image, bytes) for image in images):
        return given
    with guarded(database.folder):
        files = [keep_picture(database.folder, image) if isinstance(image, bytes) else image for image in images]
    return {**given, "images": files}


def delete(database: Database, ids: Sequence[str]) -> int:
    """Delete items; their ids stay out of later builds, but not of upserts. Returns how many there were."""
    with database.writing() as records:
        numbers = records.numbers_of(ids)
        records.drop_items(numbers.values())
        records.mark_deleted(numbers)
    return len(numbers)


class _Build:
    """One run of `build`."""

    def __init__(
        self,
        database: Database,
        encoder: CatalogEncoder,
        pairs: Pairs,
        *,
        options: BuildOptions,
        progress: Progress | None,
    ) -> None:
        self._database = database
        self._encoder = encoder
        self._options = options
        self._progress = progress or (lambda _done, _total: None)
        self._skipped = list(pairs.skipped)
        self._kept_deleted = 0
        self._kept_hidden = 0
        self._items = self._wanted_items(pairs)
        self._dropped = 0
        self._unreadable: list[str] = []
        with database.writing() as records:
            self._source = records.put_place(pairs.source)
            if records.meta("root") is None:
                records.put_meta(root=records.put_place(pairs.root))
        self._ingest = Ingest(database, encoder, root=pairs.root)

    def _wanted_items(self, pairs: Pairs) -> list[Item]:
        """Items of the pairs, without the deleted ones and those that no database can spell."""
        items = []
        for item in _grouped(pairs):
            if is_storable(item):
                items.append(item)
            else:
                reason = "its name or a text is not valid Unicode, or its name has a NUL; rename it"
                self._skipped.append(Skipped(shown(item.id), reason))
        if self._options.restore:
            return items
        with self._database.reading() as records:
            deleted = records.deleted_ids([item.id for item in items])
        self._kept_deleted = len(deleted)
        return [item for item in items if item.id not in deleted]

    def check(self) -> None:
        """Refuse, before anything is done, what the options do not allow."""
        if self._options.strict and self._skipped:
            raise _refused(self._skipped[0])
        self._gone()

    def sync(self) -> None:
        """Commit what can be written without reading a picture, then read, embed and commit the rest."""
        rest: list[Item] = []
        done = 0
        for chunk in in_chunks(self._items):
            drafts = self._without_others(self._plan(chunk))
            ready = [draft for draft in drafts if not draft.unread]
            rest += [draft.item for draft in drafts if draft.unread]
            self._write_ready(ready)
            done += len(chunk) - sum(bool(draft.unread) for draft in drafts)
            self._progress(done, len(self._items))
        if rest:
            self._read(rest, done)

    def _plan(self, items: Iterable[Item]) -> list[Draft]:
        with self._database.reading() as records:
            return plan(records, items, source=self._source)

    def _without_others(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Leave out, and name, what has the id of another item, which another source holds."""
        with self._database.reading() as records:
            kept = kept_by_others(records, drafts, source=self._source)
        refused = [Skipped(shown(name), _KEPT.format(source), id=name) for name, source in kept.items()]
        self._skipped += refused
        if refused and self._options.strict:
            raise _refused(refused[0])
        return [draft for draft in drafts if draft.item.id not in kept]

    def _write_ready(self, drafts: Sequence[Draft]) -> None:
        same = [draft for draft in drafts if draft.same]
        self._ingest.counts["unchanged"] += len(same)
        moved = [
            draft.stored.number
            for draft in same
            if draft.stored is not None and draft.stored.number is not None and draft.stored.source != self._source
        ]
        if moved:
            with self._database.writing() as records:
                records.set_source(moved, self._source)
        self._ingest.commit([draft for draft in drafts if not draft.same])

    def _read(self, items: Sequence[Item], done: int) -> None:
        drafts = (draft for chunk in in_chunks(items) for draft in self._plan(chunk))
        ready: list[Draft] = []
        since = time.monotonic()
        for draft in self._ingest.reader.read(load_recorded(self._database, self._encoder, "image"), drafts):
            done += 1
            self._note_failures(draft)
            if draft.good:
                ready.append(draft)
            if len(ready) >= BATCH_ITEMS or time.monotonic() - since > BATCH_SECONDS:
                self._ingest.commit(ready)
                ready, since = [], time.monotonic()
            self._progress(done, len(self._items))
        self._ingest.commit(ready)

    def _note_failures(self, draft: Draft) -> None:
        failures = _failures(draft)
        self._skipped += failures
        if failures and self._options.strict:
            raise _refused(failures[0])
        if not draft.good:
            self._unreadable.append(draft.item.id)

    def _gone(self) -> dict[str, int]:
        """Return id and number of this source's items that are to be dropped; none where a bad row may be one of them.

        Raises:
            CatalogError: that is more than half of them, and not asked for.
        """
        with self._database.reading() as records:
            there = records.ids_of_source(self._source)
        wanted = {item.id for item in self._items}.difference(self._unreadable)
        gone = {name: number for name, number in there.items() if name not in wanted}
        if not gone or self._options.prune:
            return gone
        if any(one.hides for one in self._skipped):
            self._kept_hidden = len(gone)
            return {}
        if len(gone) * 2 > len(there):
            raise CatalogError(
                f"This would drop {len(gone)} of the {len(there)} items of this source, such as {min(gone)!r}: "
                f"nothing was dropped. If they are really gone, say so with --prune (prune=True); "
                f"if not, look whether a folder is missing or not mounted."
            )
        return gone

    def drop(self) -> None:
        """Drop the items of this source that the pairs no longer have, or whose pictures can no longer be read."""
        gone = self._gone()
        if gone:
            with self._database.writing() as records:
                records.drop_items(gone.values())
        self._dropped = len(gone)

    def report(self) -> SyncReport:
        """Return what was done."""
        counts = self._ingest.counts
        return SyncReport(
            added=counts["added"],
            changed=counts["changed"],
            dropped=self._dropped,
            unchanged=counts["unchanged"],
            skipped=tuple(self._skipped),
            kept_deleted=self._kept_deleted,
            kept_hidden=self._kept_hidden,
        )


def _grouped(pairs: Pairs) -> Iterator[Item]:
    """Return one item for each id: images and captions in order and without doubles; the first row's attributes win."""
    for name, rows in pairs.by_item().items():
        attributes: dict[str, Any] = {}
        for pair in reversed(rows):
            attributes |= pair.attributes
        yield Item(
            id=name,
            images=tuple(dict.fromkeys(pair.image for pair in rows)),
            captions=clean_captions(caption for pair in rows for caption in pair.captions),
            attributes=plain_attributes(attributes, name),
        )


def _checked(given: Iterable[Mapping[str, Any] | Item], root: Path, dimension: int | None) -> list[Item]:
    """Return the items, the last one where several have the same id."""
    items: dict[str, Item] = {}
    for one in given:
        item = item_from(one, root=root, dimension=dimension)
        if not is_storable(item):
            raise ItemError(f"item {item.id!r}: its name or a text is not valid Unicode, or its name has a NUL")
        for vectors in (item.image_vectors, item.caption_vectors):
            dimension = vectors.shape[1] if vectors is not None else dimension
        items[item.id] = item
    return list(items.values())


def _prepare(database: Database, encoder: CatalogEncoder, items: Sequence[Item]) -> None:
    """Record the encoder, or the dimension of the first vectors, where the catalog has neither yet."""
    if encoder.space.dimension is not None:
        return
    if encoder.is_given:
        load_recorded(database, encoder, "image")
        return
    dimension = next((item.image_vectors.shape[1] for item in items if item.image_vectors is not None), None)
    if dimension is not None:
        with database.writing() as records:
            records.put_meta(dimension=dimension)
        encoder.update(VectorSpace(None, dimension))


def _root(database: Database) -> Path:
    """Return the folder that relative paths of pictures are under: recorded at the first write."""
    with database.reading() as records:
        number = records.meta("root")
        if number is not None:
            return records.place(number)
    with database.writing() as records:
        root = Path.cwd()
        records.put_meta(root=records.put_place(root))
    return root


def _failures(draft: Draft) -> list[Skipped]:
    return [
        Skipped(draft.item.id if picture.source is None else picture.source.name, picture.failure)
        for picture in draft.pictures
        if picture.failure is not None
    ]


def _refused(skipped: Skipped) -> CatalogError:
    return CatalogError(f"{skipped.name}: {skipped.reason}. Mend or remove it, or build without --strict to skip it.")
