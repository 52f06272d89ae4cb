"""The one writer of an open catalog: plan, embed, commit, maintain."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from index.errors import IndexingError
from retrieval.catalog.encoder import CatalogEncoder, make_encoder_record
from retrieval.catalog.items import is_storable, parse_item
from retrieval.catalog.side import Side
from retrieval.catalog.write.commit import ItemCommitter
from retrieval.catalog.write.embed import ImageEmbedder
from retrieval.catalog.write.maintenance import maintain
from retrieval.catalog.write.picture_files import store_pictures
from retrieval.catalog.write.plan import PlannedItem, plan_items, plan_patches
from retrieval.catalog.write.swap_text_tower import swap_text_tower
from retrieval.catalog.write.sync import Build, BuildOptions, Progress
from retrieval.encoder import Encoder
from retrieval.errors import CatalogError, ItemError
from retrieval.pairs import Pairs, Skipped
from retrieval.records.database import PATIENCE, Database
from retrieval.records.state import CatalogState, VectorSpace
from retrieval.types import Adoption, Agreement, Item, SideName, SyncReport

MAX_TOUCHED_SHARE: Final = 0.05  # of all vectors, past which small changes are followed by maintenance
BUILD_PATIENCE: Final = 5.0  # seconds: a build starts between the changes that a service makes

logger = logging.getLogger("retrieval.catalog")


class CatalogWriter:
    """Changes a catalog; its methods take turns, among threads and among processes."""

    def __init__(
        self, database: Database, encoder: CatalogEncoder, sides: Mapping[SideName, Side], *, device: str
    ) -> None:
        """Write to an open catalog."""
        self._database = database
        self._encoder = encoder
        self._sides = sides
        self._device = device
        self._lock = threading.Lock()
        self._touched = 0  # items that were changed since the last maintenance

    @contextmanager
    def locked(self, *, patience: float = PATIENCE) -> Iterator[None]:
        """Be the only writer: wait for other threads, and `patience` seconds for another process."""
        self._database.check_process()  # before any lock
        with self._lock, self._database.writer(patience=patience):
            yield

    def build(self, pairs: Pairs, *, options: BuildOptions, progress: Progress | None) -> SyncReport:
        """Make the catalog hold what `pairs` hold."""
        with self.locked(patience=BUILD_PATIENCE):
            try:
                report = Build(
                    self._database, self._encoder, pairs, options=options, progress=progress or (lambda *_: None)
                ).run()
            except CatalogError:
                self._try_maintain()  # after the batches that were committed before
                raise
            self._maintain()
        return report

    def set_precision(self, pairs: Pairs, precision: str, *, force: bool) -> Agreement | None:
        """Reduce the image tower of a catalog without vectors, or check that it has this precision."""
        from retrieval.catalog.write.precision import set_precision  # it loads an encoder's parts

        with self.locked(patience=BUILD_PATIENCE):
            return set_precision(self._database, self._encoder, pairs, precision=precision, force=force)

    def upsert(self, items: Iterable[Mapping[str, Any] | Item]) -> SyncReport:
        """Add or replace whole items by id, all in one commit; an item with an unreadable picture is refused alone."""
        with self.locked():
            state, root = self._begin()
            with_files, skipped = store_pictures(self._database.folder, items)
            checked = _check_items(with_files, root, self._encoder.space.dimension)
            self._record_dimension(checked)
            with self._database.reading() as records:
                planned = plan_items(records, checked, source=None)
            return self._write(planned, state, root=root, skipped=skipped)

    def patch(self, changes: Iterable[Mapping[str, Any]]) -> SyncReport:
        """Change parts of items, all in one commit; a change of an unknown item is refused alone."""
        with self.locked():
            state, root = self._begin()
            with_files, skipped = store_pictures(self._database.folder, changes)
            with self._database.reading() as records:
                planned, unknown = plan_patches(records, with_files, root=root)
            if not all(is_storable(one.item) for one in planned):
                raise ItemError("A text of an item is not valid Unicode.")
            return self._write(planned, state, root=root, skipped=[*skipped, *unknown])

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items; their ids stay out of later builds, but not of upserts. Return how many there were."""
        with self.locked():
            with self._database.writing() as records:
                state = self._encoder.read_state(records)
                numbers = records.numbers_of(ids)
                records.drop_items(numbers.values())
                records.mark_deleted(numbers)
            self._maintain_after(len(numbers), state)
        return len(numbers)

    def adopt(self, encoder: Encoder, *, progress: Progress | None) -> Adoption:
        """Switch the catalog to an encoder of the same image tower."""
        with self.locked():
            with self._database.reading() as records:
                state = self._encoder.read_state(records)
            encoder = self._encoder.reduce(encoder)
            adoption = swap_text_tower(self._database, state, encoder, progress=progress or (lambda *_: None))
            self._encoder.replace(encoder, make_encoder_record(encoder, self._database.folder))
            self._maintain()
        return adoption

    def put_caption_weight(self, weight: float) -> None:
        """Record how much captions count beside pictures where items are ranked as wholes."""
        with self.locked(), self._database.writing() as records:
            records.put_meta(caption_weight=weight)

    # --- embed and commit

    def _begin(self) -> tuple[CatalogState, Path]:
        """Return the state and the folder that relative paths are under; the first write records it."""
        with self._database.reading() as records:
            state = self._encoder.read_state(records)
            root = Path.cwd() if state.root is None else records.place(state.root)
        self._encoder.record_given()
        if state.root is None:
            with self._database.writing() as records:
                records.put_meta(root=records.put_place(root))
        return state, root

    def _record_dimension(self, items: Sequence[Item]) -> None:
        """Record the encoder, or the dimension of the first imported vectors, where the catalog has neither yet."""
        if self._encoder.space.dimension is not None:
            return
        if self._encoder.is_given:
            self._encoder.load_and_record("image")
            return
        dimension = next((item.image_vectors.shape[1] for item in items if item.image_vectors is not None), None)
        if dimension is not None:
            with self._database.writing() as records:
                records.put_meta(dimension=dimension)
            self._encoder.update(VectorSpace(None, dimension))

    def _write(
        self, planned: Sequence[PlannedItem], state: CatalogState, *, root: Path, skipped: Sequence[Skipped]
    ) -> SyncReport:
        """Embed and commit the planned items whose pictures can all be read, then maintain the catalog."""
        embedder = ImageEmbedder(self._database)
        committer = ItemCommitter(self._database, self._encoder, root=root, rows=embedder.rows)
        changed = [one for one in planned if not one.is_unchanged]
        if any(one.unread for one in changed):
            encoder = self._encoder.load_and_record("image")
            changed = list(embedder.embed(encoder, changed))
        committer.commit([one for one in changed if not one.failures])
        counts = committer.counts
        self._maintain_after(counts["added"] + counts["changed"], state)
        return SyncReport(
            counts["added"],
            counts["changed"],
            unchanged=counts["unchanged"] + len(planned) - len(changed),
            skipped=(*skipped, *(failure for one in changed for failure in one.failures)),
        )

    # --- maintain

    def _maintain_after(self, touched: int, state: CatalogState) -> None:
        """Maintain the catalog after many small changes as after a large one, since it scans the records."""
        self._touched += touched
        if self._touched > MAX_TOUCHED_SHARE * sum(side.rows for side in state.sides.values()):
            self._try_maintain()

    def _try_maintain(self) -> None:
        """Maintain the catalog; a full disk or a missing FAISS does not fail the changes, which are committed."""
        try:
            self._maintain()
        except (CatalogError, IndexingError) as error:
            logger.warning("The changes are committed, but the catalog could not be maintained: %s", error)

    def _maintain(self) -> None:
        self._touched = 0
        maintain(self._database, self._sides, device=self._device)


def _check_items(items: Iterable[Mapping[str, Any] | Item], root: Path, dimension: int | None) -> list[Item]:
    """Return the checked items, of those with one id the last; one of another form or dimension is an ItemError."""
    checked: dict[str, Item] = {}
    for one in items:
        item = parse_item(one, root=root, dimension=dimension)
        if not is_storable(item):
            raise ItemError(f"Item {item.id!r}: its id or a text is not valid Unicode, or its id has a NUL.")
        for vectors in (item.image_vectors, item.caption_vectors):
            dimension = vectors.shape[1] if vectors is not None else dimension
        checked[item.id] = item
    return list(checked.values())
