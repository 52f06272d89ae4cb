"""Dynamic batching of concurrent requests: one call answers all that came while the call before it ran."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from retrieval.server.errors import BusyError
from retrieval.server.executors import BoundedExecutor

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

MAX_DELAY = 0.002  # seconds that a request waits for others, if the batch before had several
_MAX_COST = 0.9  # a larger batch pays if a text costs less than this fraction of its cost in a smaller one
_PROBED_SIZES = (1, 4, 16, 64)


@dataclass(slots=True)
class _Pending(Generic[RequestT, ResultT]):
    request: RequestT
    future: "asyncio.Future[ResultT]"

    def resolve(self, result: ResultT | BaseException) -> None:
        if self.future.done():  # its caller went away
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Batcher(Generic[RequestT, ResultT]):
    """Answers many callers with one call at a time, on one thread.

    A single request is processed at once. Requests that come while a call runs form the next batch; after a batch of
    several, the next one waits `MAX_DELAY` seconds for callers that ask again.
    """

    def __init__(
        self, process: Callable[[Sequence[RequestT]], Sequence[ResultT | BaseException]], *, size: int, queue: int
    ) -> None:
        """Create an idle batcher; `start` begins to process.

        Args:
            process: Called on the thread with 1 to `size` requests; returns a result or an error for each.
            size: Largest batch.
            queue: Requests that may wait; one more is refused at once.
        """
        self._process = process
        self.size = size
        self._queue = queue
        self._pending: list[_Pending[RequestT, ResultT]] = []
        self._wake = asyncio.Event()
        self._executor = BoundedExecutor("searches", threads=1, queue=2)
        self._task: asyncio.Task[None] | None = None
        self.on_batch: Callable[[int], None] = lambda _size: None

    @property
    def pending(self) -> int:
        """Number of requests that wait for their batch."""
        return len(self._pending)

    def start(self) -> None:
        """Begin to process, on the running loop."""
        self._task = asyncio.create_task(self._process_batches())

    async def stop(self) -> None:
        """Wait for the running call; every caller still waiting gets a BusyError."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for one in self._pending:
            one.resolve(BusyError("searches"))
        await asyncio.to_thread(self._executor.close)

    async def submit(self, request: RequestT) -> ResultT:
        """Return the result of one request; its cancellation affects no other. BusyError if the queue is full."""
        if len(self._pending) >= self._queue:
            raise BusyError("searches")
        one: _Pending[RequestT, ResultT] = _Pending(request, asyncio.get_running_loop().create_future())
        self._pending.append(one)
        self._wake.set()
        try:
            return await one.future
        finally:
            with contextlib.suppress(ValueError):
                self._pending.remove(one)

    async def _process_batches(self) -> None:
        several = False
        while True:
            await self._wake.wait()
            await asyncio.sleep(MAX_DELAY if several and len(self._pending) < self.size else 0)
            batch, self._pending = self._pending[: self.size], self._pending[self.size :]
            if not self._pending:
                self._wake.clear()
            several = len(batch) > 1
            if batch:
                await self._process_batch(batch)

    async def _process_batch(self, batch: Sequence[_Pending[RequestT, ResultT]]) -> None:
        self.on_batch(len(batch))
        results: Sequence[ResultT | BaseException]
        try:
            results = await self._executor.run(self._process, [one.request for one in batch])
        except asyncio.CancelledError:
            for one in batch:
                one.resolve(BusyError("searches"))
            raise
        except Exception as error:  # noqa: BLE001 - each caller gets it; this task has to go on
            results = [error] * len(batch)
        for one, result in zip(batch, results, strict=True):
            one.resolve(result)


def measure_batch_size(
    encode: Callable[[Sequence[str]], object], *, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return the batch size above which `encode` gains nothing: on some machines a batch costs what its texts do."""
    encode(["a first text"])
    best, lowest = 1, float("inf")
    for size in _PROBED_SIZES:
        cost = min(_time_encode(encode, size, clock) for _ in range(3)) / size
        if cost > lowest * _MAX_COST:
            break
        best, lowest = size, cost
    return best


def _time_encode(encode: Callable[[Sequence[str]], object], size: int, clock: Callable[[], float]) -> float:
    start = clock()
    encode([f"a text to measure with, number {number}" for number in range(size)])
    return clock() - start
