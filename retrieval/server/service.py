"""What the routes share: the catalog behind lanes of threads, and whether it is ready."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Request

from retrieval.errors import RetrievalError
from retrieval.server.batching import Batcher, measured_size
from retrieval.server.catalog_api import Answer, Engine
from retrieval.server.changes import Change, Outcome, apply
from retrieval.server.errors import Problem
from retrieval.server.executors import Lane
from retrieval.server.metrics import Metrics
from retrieval.server.settings import Settings
from retrieval.server.thumbnails import Thumbnails

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

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = Metrics()
        self.thumbnails = Thumbnails(settings.thumbnails)
        self.searches: Batcher[Search, Answer] = Batcher(
            engine.search_many, size=settings.batch or _FIRST_BATCH, queue=settings.queue
        )
        self.reads = Lane("reads", threads=_READERS, queue=settings.queue)
        self.writes = Lane("changes", threads=1, queue=settings.queue)
        self.checks = Lane("checks", threads=1, queue=settings.queue)
        self.bulks = 0
        self.ready = False
        self.trouble: BaseException | None = None
        self.on_settled: Callable[[], None] = lambda: None
        self._warming: asyncio.Task[None] | None = None
        self.metrics.watch(self)
        self.searches.on_batch = self.metrics.batches.observe

    def start(self) -> None:
        """Begin to work, and to get warm, on the running loop."""
        self.searches.start()
        self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        try:
            encode = await self.reads.run(self.engine.warm)
            if encode is not None and not self.settings.batch:
                self.searches.size = await self.reads.run(measured_size, encode)
            self.ready = True
        except Exception as error:
            self.trouble = error
            if not isinstance(error, RetrievalError):
                logger.exception("the service does not get warm")
        self.on_settled()

    async def parsed(self, parse: Callable[[bytes], Parsed], data: bytes) -> Parsed:
        """Return what `parse` makes of a body; of a large one on a thread, so that it keeps no other waiting."""
        return parse(data) if len(data) < _LARGE else await self.reads.run(parse, data)

    def check_may_change(self) -> None:
        """Refuse a change where the service is read only.

        Raises:
            Problem: 403.
        """
        if self.settings.read_only:
            raise Problem(403, "This service is read only: it takes no changes.")

    async def change(self, changes: Sequence[Change]) -> list[Outcome]:
        """Return the outcomes of changes, once they are on the disk.

        Raises:
            Problem: 403 where the service is read only, 503 where too many changes wait.
        """
        self.check_may_change()
        return await self.writes.run(apply, self.engine, changes)

    async def stop(self) -> None:
        """Finish what runs on threads."""
        if self._warming is not None:
            self._warming.cancel()
        await self.searches.stop()
        for lane in (self.reads, self.writes, self.checks):
            await asyncio.to_thread(lane.close)


def service_of(request: Request) -> Any:
    """Return the service that a request is for."""
    return request.app.state.service


Served: TypeAlias = Annotated[Service, Depends(service_of)]
