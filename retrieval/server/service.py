"""What the routes share: the catalog behind lanes of threads, and whether it is ready."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Request

from retrieval.errors import RetrievalError
from retrieval.server.batching import Batcher, measure_batch_size
from retrieval.server.catalog_api import Answer, CatalogAPI
from retrieval.server.changes import ChangeResult, ItemChange, apply
from retrieval.server.errors import ApiError
from retrieval.server.executors import BoundedExecutor
from retrieval.server.metrics import Metrics
from retrieval.server.settings import Settings
from retrieval.server.thumbnails import ThumbnailCache

if TYPE_CHECKING:
    from retrieval.catalog.search.request import Request as Search

logger = logging.getLogger("retrieval.server")

_READERS = 4
_FIRST_BATCH = 16
_LARGE = 64 * 2**10  # bytes

Parsed = TypeVar("Parsed")


class Service:
    """One catalog that is served.

    Attributes:
        engine: What is asked of the catalog; called through one of the lanes only.
        searches: Collects searches into batches.
        reads: Threads that read items and pictures.
        writes: The one thread that changes items.
        checks: A thread for who asks how the service fares: pictures that wait in `reads` do not make it look ill.
        bulks: How many bulk requests are under way.
        trouble: Why the service will not get ready.
    """

    def __init__(self, engine: CatalogAPI, settings: Settings) -> None:
        self.api = engine
        self.settings = settings
        self.metrics = Metrics()
        self.thumbnails = ThumbnailCache(settings.thumbnails)
        self.batcher: Batcher[Search, Answer] = Batcher(
            engine.search_many, size=settings.batch or _FIRST_BATCH, queue=settings.queue
        )
        self.read_executor = BoundedExecutor("reads", threads=_READERS, queue=settings.queue)
        self.write_executor = BoundedExecutor("changes", threads=1, queue=settings.queue)
        self.health_executor = BoundedExecutor("checks", threads=1, queue=settings.queue)
        self.bulks = 0
        self.ready = False
        self.startup_error: BaseException | None = None
        self.on_started: Callable[[], None] = lambda: None
        self._warming: asyncio.Task[None] | None = None
        self.metrics.watch(self)
        self.batcher.on_batch = self.metrics.batches.observe

    def start(self) -> None:
        """Begin to work, and to get warm, on the running loop."""
        self.batcher.start()
        self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        try:
            encode = await self.read_executor.run(self.api.warm)
            if encode is not None and not self.settings.batch:
                self.batcher.size = await self.read_executor.run(measure_batch_size, encode)
            self.ready = True
        except Exception as error:
            self.startup_error = error
            if not isinstance(error, RetrievalError):
                logger.exception("the service does not get warm")
        self.on_started()

    async def parse_body(self, parse: Callable[[bytes], Parsed], data: bytes) -> Parsed:
        """Return what `parse` makes of a body; of a large one on a thread, so that it keeps no other waiting."""
        return parse(data) if len(data) < _LARGE else await self.read_executor.run(parse, data)

    def require_writable(self) -> None:
        """Refuse a change where the service is read only.

        Raises:
            Problem: 403.
        """
        if self.settings.read_only:
            raise ApiError(403, "This service is read only: it takes no changes.")

    async def change(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        """Return the outcomes of changes, once they are on the disk.

        Raises:
            Problem: 403 where the service is read only, 503 where too many changes wait.
        """
        self.require_writable()
        return await self.write_executor.run(apply, self.api, changes)

    async def stop(self) -> None:
        """Finish what runs on threads."""
        if self._warming is not None:
            self._warming.cancel()
        await self.batcher.stop()
        for lane in (self.read_executor, self.write_executor, self.health_executor):
            await asyncio.to_thread(lane.close)


def get_service(request: Request) -> Any:
    """Return the service that a request is for."""
    return request.app.state.service


ServiceDep: TypeAlias = Annotated[Service, Depends(get_service)]
