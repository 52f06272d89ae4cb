"""Build as a sync with a PAIRS source: a crash or Ctrl-C loses at most one batch, and the next build resumes."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from index.errors import DeviceError
from index.kinds import KINDS
from index.spec import find_engine_problem
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.items import clean_captions, escape_surrogates, is_storable, normalize_attributes
from retrieval.catalog.write.commit import ItemCommitter
from retrieval.catalog.write.embed import ImageEmbedder
from retrieval.catalog.write.plan import PlannedItem, owned_by_other_sources, plan_items
from retrieval.errors import CatalogError
from retrieval.pairs import Pairs, Skipped
from retrieval.records.database import Database
from retrieval.types import Item, SyncReport

PLANNED_ITEMS: Final = 1000  # compared with the records in one transaction
BATCH_ITEMS = 1024
BATCH_SECONDS = 5.0  # a slow encoder's work is on the disk at least this often

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options of `Catalog.build`."""

    prune: bool = False
    restore: bool = False
    strict: bool = False
    index: str | None = None

    def __post_init__(self) -> None:
        if self.index not in {None, "auto", *KINDS}:
            raise CatalogError(f"There is no index kind {self.index!r}. Use one of auto, {', '.join(KINDS)}.")
        if self.index in KINDS and (problem := find_engine_problem(self.index)):
            raise DeviceError(f"An index of kind {self.index} cannot be built here: {problem}")


class Build:
    """One build, by the one writer.

    An item without a readable picture is skipped, and dropped where the catalog has it, so that the result does not
    depend on earlier builds. An item that another source owns is skipped too (`owned_by_other_sources`).
    """

    def __init__(
        self, database: Database, encoder: CatalogEncoder, pairs: Pairs, *, options: BuildOptions, progress: Progress
    ) -> None:
        """Read which items to write and drop; raise a CatalogError where options or encoder do not allow it."""
        self._database = database
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self._skipped = list(pairs.skipped)
        self._hidden = 0
        self._unreadable: set[str] = set()
        items = self._storable_items(pairs)
        with database.reading() as records:
            state = encoder.read_state(records)
            source = records.find_place(pairs.source)
            deleted = set() if options.restore else records.deleted_ids([item.id for item in items])
            self._stored = {} if source is None else records.ids_of_source(source)
        self._deleted = len(deleted)
        self._items = [item for item in items if item.id not in deleted]
        self._skip([])
        self._gone = self._find_gone()
        encoder.record_given()
        if source is None or state.root is None or options.index not in {None, state.index}:
            with database.writing() as records:
                source = records.put_place(pairs.source)
                if state.root is None:
                    records.put_meta(root=records.put_place(pairs.root))
                if options.index is not None:
                    records.put_meta(index=options.index)
        self._source = source
        self._embedder = ImageEmbedder(database)
        self._committer = ItemCommitter(database, encoder, root=pairs.root, rows=self._embedder.rows)

    def _storable_items(self, pairs: Pairs) -> list[Item]:
        items = []
        for item in _group_by_id(pairs):
            if is_storable(item):
                items.append(item)
            else:
                reason = "its id or a text is not valid Unicode, or its id has a NUL; rename it"
                self._skipped.append(Skipped(escape_surrogates(item.id), reason))
        return items

    def run(self) -> SyncReport:
        """Commit the items whose pictures are unchanged, embed and commit the others, and drop the missing ones."""
        unread: list[Item] = []
        to_read: list[PlannedItem] = []
        done = 0
        for chunk in _chunks(self._items):
            planned = self._plan(chunk)
            to_read = [one for one in planned if one.unread]
            self._commit_read([one for one in planned if not one.unread])
            unread += [one.item for one in to_read]
            done += len(chunk) - len(to_read)
            self._progress(done, len(self._items))
        if len(unread) > len(to_read):  # plans of many items would fill the memory
            self._embed((one for chunk in _chunks(unread) for one in self._plan(chunk)), done)
        elif unread:
            self._embed(to_read, done)
        self._drop()
        counts = self._committer.counts
        return SyncReport(
            added=counts["added"],
            changed=counts["changed"],
            dropped=len(self._gone),
            unchanged=counts["unchanged"],
            skipped=tuple(self._skipped),
            kept_deleted=self._deleted,
            kept_hidden=self._hidden,
        )

    def _plan(self, items: Sequence[Item]) -> list[PlannedItem]:
        """Plan the items; those that another source owns are skipped."""
        with self._database.reading() as records:
            planned = plan_items(records, items, source=self._source)
            owned = owned_by_other_sources(records, planned, source=self._source)
        reason = (
            "its id is that of an item of {} with another picture, which stays; give one of them another id, or build "
            "the folder that holds both (once that source is gone, its items are taken over)"
        )
        self._skip([Skipped(escape_surrogates(name), reason.format(by), id=name) for name, by in owned.items()])
        return [one for one in planned if one.item.id not in owned]

    def _skip(self, skipped: Sequence[Skipped]) -> None:
        self._skipped += skipped
        if self._skipped and self._options.strict:
            first = self._skipped[0]
            raise CatalogError(f"{first.name}: {first.reason}. Fix or remove it, or build without --strict to skip it.")

    def _commit_read(self, planned: Sequence[PlannedItem]) -> None:
        unchanged = [one for one in planned if one.is_unchanged]
        self._committer.counts["unchanged"] += len(unchanged)
        moved = [
            one.stored.number
            for one in unchanged
            if one.stored is not None and one.stored.number is not None and one.stored.source != self._source
        ]
        if moved:
            with self._database.writing() as records:
                records.set_source(moved, self._source)
        self._committer.commit([one for one in planned if not one.is_unchanged])

    def _embed(self, planned: Iterable[PlannedItem], done: int) -> None:
        batch: list[PlannedItem] = []
        since = time.monotonic()
        for one in self._embedder.embed(self._encoder.load_and_record("image"), planned):
            done += 1
            self._skip(one.failures)
            if one.readable:
                batch.append(one)
            else:
                self._unreadable.add(one.item.id)
            if len(batch) >= BATCH_ITEMS or time.monotonic() - since > BATCH_SECONDS:
                self._committer.commit(batch)
                batch, since = [], time.monotonic()
            self._progress(done, len(self._items))
        self._committer.commit(batch)

    def _find_gone(self) -> dict[str, int]:
        """Return this source's items to drop, unless an unreadable row may hide them; refuse more than half of them."""
        wanted = {item.id for item in self._items} - self._unreadable
        gone = {name: number for name, number in self._stored.items() if name not in wanted}
        if not gone or self._options.prune:
            return gone
        if any(one.may_hide_items for one in self._skipped):
            self._hidden = len(gone)
            return {}
        if len(gone) * 2 > len(self._stored):
            raise CatalogError(
                f"This would drop {len(gone)} of the {len(self._stored)} items of this source, such as {min(gone)!r}: "
                f"nothing was dropped. If they were deleted, build with --prune (prune=True); "
                f"if not, check whether a folder is missing or not mounted."
            )
        return gone

    def _drop(self) -> None:
        """Drop the items of this source that the pairs no longer have, or whose pictures can no longer be read."""
        if self._unreadable:
            with self._database.reading() as records:
                self._stored = records.ids_of_source(self._source)
            self._gone = self._find_gone()
        if self._gone:
            with self._database.writing() as records:
                records.drop_items(self._gone.values())


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), PLANNED_ITEMS):
        yield items[start : start + PLANNED_ITEMS]


def _group_by_id(pairs: Pairs) -> Iterator[Item]:
    """Return one item for each id: distinct images and captions in order; the first row's attributes win."""
    for name, rows in pairs.by_item().items():
        attributes: dict[str, Any] = {}
        for pair in reversed(rows):
            attributes |= pair.attributes
        yield Item(
            id=name,
            images=tuple(dict.fromkeys(pair.image for pair in rows)),
            captions=clean_captions(caption for pair in rows for caption in pair.captions),
            attributes=normalize_attributes(attributes, name),
        )
