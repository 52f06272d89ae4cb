"""The state that routes share: the catalog behind its executors, and whether the service is ready."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from cachetools import LRUCache, TTLCache
from fastapi import Depends, Request

from retrieval.errors import RetrievalError
from retrieval.server.batching import Batcher, measure_batch_size
from retrieval.server.catalog_api import CatalogAPI, ChangeResult, ItemChange, Json
from retrieval.server.errors import ApiError
from retrieval.server.executors import BoundedExecutor
from retrieval.server.metrics import Metrics
from retrieval.server.settings import Settings

if TYPE_CHECKING:
    from retrieval.catalog.search.request import SearchRequest

logger = logging.getLogger("retrieval.server")

_READ_THREADS = 4
_DEFAULT_BATCH = 16
_LARGE_BODY = 64 * 2**10  # bytes
_SIDEBAR_SECONDS = 60

Parsed = TypeVar("Parsed")


class Service:
    """A catalog that is served.

    Attributes:
        api: The catalog; call it on one of the executors only.
        batcher: Collects searches into batches.
        read_executor: Threads that read items and images.
        write_executor: The one thread that changes items.
        health_executor: A thread for health checks: waiting reads do not make the service look ill.
        thumbnails: WebP data by entity tag; used on the event loop only.
        sidebar: What `/facets` answers, by its only key "facets".
        bulk_requests: Number of bulk requests in progress.
        startup_error: Why the service cannot become ready.
        on_started: Called once it is ready, or has a startup error.
    """

    def __init__(self, api: CatalogAPI, settings: Settings) -> None:
        self.api = api
        self.settings = settings
        self.metrics = Metrics()
        self.thumbnails: LRUCache[str, bytes] = LRUCache(settings.thumbnail_cache, getsizeof=len)
        self.batcher: Batcher[SearchRequest, Json] = Batcher(
            api.search_many, size=settings.batch_size or _DEFAULT_BATCH, queue=settings.queue
        )
        self.batcher.on_batch = self.metrics.batches.observe
        self.read_executor = BoundedExecutor("reads", threads=_READ_THREADS, queue=settings.queue)
        self.write_executor = BoundedExecutor("changes", threads=1, queue=settings.queue)
        self.health_executor = BoundedExecutor("checks", threads=1, queue=settings.queue)
        self.sidebar: TTLCache[str, Json] = TTLCache(1, ttl=_SIDEBAR_SECONDS)
        self.bulk_requests = 0
        self.ready = False
        self.startup_error: BaseException | None = None
        self.on_started: Callable[[], None] = lambda: None
        self._warm_up_task: asyncio.Task[None] | None = None
        queues = {"searches": self.batcher, "reads": self.read_executor, "changes": self.write_executor}
        for calls, queue in queues.items():
            self.metrics.pending.labels(calls).set_function(partial(getattr, queue, "pending"))
        self.metrics.ready.set_function(lambda: self.ready)
        self.metrics.thumbnail_bytes.set_function(lambda: self.thumbnails.currsize)

    def start(self) -> None:
        """Begin to process searches and to warm up, on the running loop."""
        self.batcher.start()
        self._warm_up_task = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            encode = await self.read_executor.run(self.api.warm_up)
            if encode is not None and not self.settings.batch_size:
                self.batcher.size = await self.read_executor.run(measure_batch_size, encode)
            self.ready = True
        except Exception as error:
            self.startup_error = error
            if not isinstance(error, RetrievalError):
                logger.exception("The service failed to start.")
        self.on_started()

    async def parse_body(self, parse: Callable[[bytes], Parsed], data: bytes) -> Parsed:
        """Return `parse(data)`; a large body is parsed on a thread, so that other requests do not wait for it."""
        return parse(data) if len(data) < _LARGE_BODY else await self.read_executor.run(parse, data)

    def require_writable(self) -> None:
        """Raise ApiError 403 if the service is read-only."""
        if self.settings.read_only:
            raise ApiError(403, "This service is read-only: it accepts no changes.")

    async def apply(self, changes: Sequence[ItemChange]) -> list[ChangeResult]:
        """Return the results of changes, once they are durable; ApiError 403 if read-only, 503 if too many wait."""
        self.require_writable()
        return await self.write_executor.run(self.api.apply, changes)

    async def stop(self) -> None:
        """Wait for the calls that run on threads."""
        if self._warm_up_task is not None:
            self._warm_up_task.cancel()
        await self.batcher.stop()
        for executor in (self.read_executor, self.write_executor, self.health_executor):
            await asyncio.to_thread(executor.close)


async def get_service(request: Request) -> Any:
    """Return the service that a request is for."""
    return request.app.state.service


ServiceDep: TypeAlias = Annotated[Service, Depends(get_service)]
