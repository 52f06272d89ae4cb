"""Catalog: items, their vectors and indexes, in a folder on disk that is built, changed and searched."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import ArrayLike

from index.errors import IndexingError
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.search.batch import Searcher
from retrieval.catalog.search.hits import read_image_sources, read_items
from retrieval.catalog.search.request import Boost, Fusion, Mode, SearchRequest, make_request
from retrieval.catalog.side import Side
from retrieval.encoder import Encoder
from retrieval.errors import CatalogError, QueryError, RetrievalError
from retrieval.images.sources import ImageSource
from retrieval.pairs import Pairs
from retrieval.query import ImageInput
from retrieval.records.database import Database, create_database, is_blank, is_catalog, missing_catalog
from retrieval.records.state import SIDES
from retrieval.types import Adoption, Agreement, Hit, Hits, Item, SideName, SyncReport, Target

if TYPE_CHECKING:
    from retrieval.catalog.evaluation import ServedCatalog
    from retrieval.catalog.write.writer import CatalogWriter

__all__ = ["Adoption", "Agreement", "Boost", "Catalog", "Hit", "Hits", "Item", "Mode", "SearchRequest", "SyncReport"]
__all__ += ["is_catalog", "make_request"]


class Catalog:
    """An open catalog: any thread and process may search it, while one process at a time writes.

    A search sees every change that was acknowledged before it began, by any process, and no part of an unfinished one.
    `Catalog.open` returns one; close it, or use it in a `with` statement.
    """

    def __init__(self, database: Database, encoder: CatalogEncoder, *, device: str) -> None:
        self._database = database
        self._encoder = encoder
        self._device = device
        may_build = not database.read_only
        self._sides: dict[SideName, Side] = {
            side: Side(database.folder, side, device=device, may_build=may_build) for side in SIDES
        }
        self._made_writer: CatalogWriter | None = None
        self._making_writer = threading.Lock()
        self._searcher = Searcher(database, encoder, self._sides)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | Callable[[], Encoder] | None = None,
        device: str = "auto",
        engine: str | None = None,
        export: bool = False,
        read_only: bool = False,
        create: bool = False,
    ) -> "Catalog":
        """Return the catalog in the folder `path`.

        Args:
            path: The folder.
            encoder: The encoder that the catalog is built with, or a function that loads it when it is first needed.
                None loads the recorded encoder when it is first needed, in a new catalog the starter.
            device: "auto", "cpu" or "cuda", for the encoder and the indexes.
            engine: As for `load_encoder`, for the recorded encoder.
            export: As for `load_encoder`, for the recorded encoder.
            read_only: Write nothing, not even a missing index.
            create: Create a missing catalog; an `encoder` implies it.

        Raises:
            CatalogError: there is none, or another encoder's; a CatalogFormatError: a newer one's, or no catalog.
        """
        folder = Path(path).resolve()
        if (create or encoder is not None) and not read_only and (not is_catalog(folder) or is_blank(folder)):
            create_database(folder)
        if not is_catalog(folder):
            raise missing_catalog(folder)
        database = Database(folder, read_only=read_only)
        try:
            loaded = CatalogEncoder(database, encoder, device=device, engine=engine, export=export)
            return cls(database, loaded, device=device)
        except BaseException:
            database.close()
            raise

    # --- changes

    def build(
        self,
        pairs: Pairs,
        *,
        prune: bool = False,
        restore: bool = False,
        strict: bool = False,
        index: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """Synchronize the catalog with `pairs`: add new items, update changed ones, drop those that are missing.

        Only items of the same PAIRS source are dropped. An item of another source with the same id is taken over where
        the two share a picture, or the other source no longer exists; otherwise it stays, and the new one is named in
        `skipped`. Batches are committed one by one: after a crash or Ctrl-C the next build continues from the last.
        Files with the same path, size and modification time count as unchanged.

        Args:
            pairs: From `read_pairs`.
            prune: Allow dropping more than half of the source's items, and any while rows of it cannot be read.
            restore: Add items again that were deleted by id.
            strict: Stop at the first picture that cannot be read.
            index: Kind of index from now on; None keeps it, in a new catalog "auto".
            progress: Called with (items done, items in total).

        Raises:
            CatalogError: too much would be dropped, the disk is full, or `strict` met a bad picture.
            CatalogLockedError: another process is writing.
            DeviceError: the engine of that kind of index is not installed.
        """
        from retrieval.catalog.write.sync import BuildOptions

        options = BuildOptions(prune=prune, restore=restore, strict=strict, index=index)
        return self._writer.build(pairs, options=options, progress=progress)

    def set_precision(self, pairs: Pairs, precision: str, *, force: bool = False) -> Agreement | None:
        """Embed pictures in "int8" from now on, in a catalog without vectors: `write.precision.set_precision`."""
        return self._writer.set_precision(pairs, precision, force=force)

    def upsert(self, items: Iterable[Mapping[str, Any] | Item]) -> SyncReport:
        """Add or replace whole items by id, in one commit.

        An item is a mapping of `id`, `images` (paths, relative to the recorded root or else to the current folder; or
        bytes, which the catalog stores), `captions`, `attributes`, and for imported vectors `image_vectors` and
        `caption_vectors`, one row each. An item with a picture that cannot be read is named in `skipped`, and the
        others are written. The same items again change nothing.

        Raises:
            CatalogError: an item has another form (then nothing is written), or the disk is full.
            CatalogLockedError: another process is writing.
        """
        return self._writer.upsert(items)

    def patch(self, changes: Iterable[Mapping[str, Any]]) -> SyncReport:
        """Change parts of items by id, in one commit.

        A change is a mapping of `id` and any of `images`, `captions` (new lists) and `attributes`, which are merged
        into the present ones (RFC 7396: None removes a key). Other parts stay, and are not embedded again. A change of
        an unknown item, or with a picture that cannot be read, is named in `skipped`, and the others are made.

        Raises:
            CatalogError: a change has another form or two are of one item (then nothing is written), or the disk is
                full.
            CatalogLockedError: another process is writing.
        """
        return self._writer.patch(changes)

    def learn_caption_weight(self, right: Mapping[str, Collection[str]]) -> float:
        """Learn, record and return the weight of captions beside pictures for the target "items".

        It is the one of 0, 0.1 ... 1 with the greatest mean reciprocal rank of the first right item.

        Args:
            right: Ids of the right items of each text, such as those that customers bought after typing it.

        Raises:
            QueryError: there are no queries, or one has no right items.
            CatalogLockedError: another process is writing.
        """
        from retrieval.catalog.search.caption_weight import learn_caption_weight

        weight = learn_caption_weight(right, self.search_many)
        self._writer.put_caption_weight(weight)
        return weight

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id until `build(restore=True)` or an upsert adds them again; return the number deleted.

        Raises:
            CatalogLockedError: another process is writing.
        """
        if isinstance(ids, str):
            raise CatalogError(f"delete takes a list of ids, not the text {ids!r}. Write [{ids!r}].")
        return self._writer.delete(list(ids))

    def adopt(self, encoder: Encoder, *, progress: Callable[[int, int], None] | None = None) -> Adoption:
        """Switch to an encoder with the same image tower, in one commit, and return what was kept and what was changed.

        For a text tower that was trained with a frozen image tower: the captions are embedded again, no picture is.

        Raises:
            CatalogError: its image tower or its dimension differs; the message names both encoders.
            CatalogLockedError: another process is writing.
        """
        return self._writer.adopt(encoder, progress=progress)

    # --- search

    def search(
        self,
        text: str | None = None,
        *,
        image: ImageInput | None = None,
        like: str | None = None,
        minus: str | None = None,
        vector: ArrayLike | None = None,
        weights: Mapping[str, float] | None = None,
        mode: Mode | None = None,
        target: Target | None = None,
        k: int = 10,
        offset: int = 0,
        where: Mapping[str, Any] | None = None,
        sort: str | Sequence[str] = (),
        group: str | None = None,
        facets: Sequence[str] | Mapping[str, Any] = (),
        floor: float | None = None,
        boosts: Sequence[Boost | Mapping[str, Any]] = (),
        fusion: Fusion = "best",
        caption_weight: float | None = None,
        effort: float | None = None,
    ) -> Hits:
        """Return the k best images, captions or items, best first; fewer where fewer match.

        Each argument is the field of `SearchRequest` of the same name, which says what it does, what it may be and what
        its default means. A text alone is searched by words and meaning (mode "hybrid") where the catalog has captions
        or attributes; a mix, a picture, an item or a vector by vectors.

        Images: one hit for each item, its best image. Captions: one hit for each text; of items that share it, the
        first one that passes the filter. Items: pictures and captions fused into one score. Equal scores come in the
        order in which vectors were added. The result is exact under any filter; without one it is as exact as the
        index. Boosts, fusion and grouping reorder the best 1,000 (or offset + k); sorting the best 100 (or offset + k)
        where something is searched for, with a floor all above it.

        Raises:
            QueryError: an argument makes no sense.
            CatalogError: the encoder that this query needs cannot be loaded.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        return self.search_many([SearchRequest(**arguments)])[0]

    def search_many(self, requests: Sequence[SearchRequest]) -> list[Hits]:
        """Return the hits of each request; texts share one forward pass, requests one index search where they can.

        Raises:
            QueryError, ImageError, CatalogError: of the first request that fails.
        """
        results = self.search_each(requests)
        for result in results:
            if not isinstance(result, Hits):
                raise result
        return [result for result in results if isinstance(result, Hits)]

    def search_each(self, requests: Sequence[SearchRequest]) -> list[Hits | RetrievalError | IndexingError]:
        """Return the hits of each request as `search_many` does, or the error that it fails with, in its place."""
        return self._searcher.search_each(requests)

    async def asearch(self, request: SearchRequest) -> Hits:
        """Return the hits of a request; the search runs in another thread."""
        import asyncio  # with ssl a tenth of a cold search from the shell

        return (await asyncio.to_thread(self.search_many, [request]))[0]

    # --- facts

    def ids(self, *, after: str | None = None, limit: int = 1000) -> list[str]:
        """Return the first `limit` ids in the order of their characters; with `after`, those that follow that id.

        Raises:
            QueryError: `limit` is less than 1.
        """
        if limit < 1:
            raise QueryError(f"limit must be at least 1, not {limit!r}.")
        with self._database.reading() as records:
            return records.ids_after(after or "", limit=limit)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, dict[str, Any]]:
        """Return the items that exist, by id: `id`, `images` as paths, `captions` and `attributes`.

        Args:
            ids: Of the items.
            vectors: Also return `image_vectors` and `caption_vectors`, unit rows (n, d), one each; `upsert` takes them.

        Raises:
            CatalogError: the file of vectors is missing.
        """
        return read_items(self._database, list(ids), vectors=vectors)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded now if it was not yet."""
        with self._database.reading() as records:
            self._encoder.update(records.state().space)
        return self._encoder.load("image")

    @property
    def dimension(self) -> int | None:
        """Length of the vectors; None before the first one."""
        with self._database.reading() as records:
            return records.state().space.dimension

    @property
    def served(self) -> "ServedCatalog":
        """Both sides with their indexes up to date, to compare search through an index with exact search."""
        from retrieval.catalog.evaluation import serve_sides

        return serve_sides(self._database, self._sides)

    def image_source(self, name: str, position: int = 0) -> ImageSource | None:
        """Return where an item's picture is, also inside a container, for `open_image`.

        For a hit: `image_source(hit.id, hit.position)`. None without such a picture or item, or with its vector alone.
        """
        with self._database.reading() as records:
            sources = read_image_sources(records, name)
        return sources[position] if position < len(sources) else None

    def info(self) -> dict[str, Any]:
        """Return counts, sizes, encoder, indexes and format of the catalog, as JSON values."""
        from retrieval.catalog.info import catalog_info

        return catalog_info(self._database, device=self._device)

    def __len__(self) -> int:
        with self._database.reading() as records:
            return records.counts()["items"]

    def close(self) -> None:
        """Close the files, once running searches and index builds have finished."""
        for side in self._sides.values():
            side.updater.wait()
        self._database.close()

    @property
    def _writer(self) -> "CatalogWriter":
        """The one writer, made at the first change: a search need not load what reads and plans changes."""
        from retrieval.catalog.write.writer import CatalogWriter

        with self._making_writer:
            if self._made_writer is None:
                self._made_writer = CatalogWriter(self._database, self._encoder, self._sides, device=self._device)
            return self._made_writer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
