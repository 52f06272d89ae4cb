"""Concurrent searches, collected into batches: one call for what came in while the one before ran."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from retrieval.server.errors import BusyError
from retrieval.server.executors import BoundedExecutor

Asked = TypeVar("Asked")
Found = TypeVar("Found")

MAX_DELAY = 0.002  # seconds: what a search may wait for others, once there were others
_WORTH = 0.9  # a batch pays where a text takes less than this share of what it takes in a smaller batch
_PROBED = (1, 4, 16, 64)


@dataclass(slots=True)
class _Waiting(Generic[Asked, Found]):
    asked: Asked
    answer: "asyncio.Future[Found]"


class Batcher(Generic[Asked, Found]):
    """Answers many callers with one call at a time, in one thread.

    A search that comes alone goes at once. What comes while a call runs goes together in the next one; and after a
    call for several, the next one waits `LINGER` seconds for those of them that ask again.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Sequence[Found | BaseException]], *, size: int, queue: int
    ) -> None:
        """Begin with nothing to do; `start` begins to work.

        Args:
            answer: Called on the thread with 1 to `size` of what is asked; returns an answer, or an error, for each.
            size: Most in one call.
            queue: Most that wait; one more is refused at once.
        """
        self._answer = answer
        self.size = size
        self._queue = queue
        self._waiting: list[_Waiting[Asked, Found]] = []
        self._there = asyncio.Event()
        self._lane = BoundedExecutor("searches", threads=1, queue=2)
        self._task: asyncio.Task[None] | None = None
        self.on_batch: Callable[[int], None] = lambda _count: None

    @property
    def waiting(self) -> int:
        """How many wait for their call."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to work, on the running loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Wait for the call that runs; whoever waits for it, or for the next one, is told to come again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for one in self._waiting:
            _settle(one.answer, BusyError("searches"))
        await asyncio.to_thread(self._lane.close)

    async def ask(self, asked: Asked) -> Found:
        """Return the answer to one of many; who is cancelled leaves the others as they are.

        Raises:
            BusyError: too many wait.
        """
        if len(self._waiting) >= self._queue:
            raise BusyError("searches")
        one: _Waiting[Asked, Found] = _Waiting(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._there.set()
        try:
            return await one.answer
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(one)

    async def _work(self) -> None:
        many = False
        while True:
            await self._there.wait()
            await asyncio.sleep(MAX_DELAY if many and len(self._waiting) < self.size else 0)
            batch = self._take()
            many = len(batch) > 1
            if batch:
                await self._call(batch)

    def _take(self) -> list[_Waiting[Asked, Found]]:
        batch, self._waiting = self._waiting[: self.size], self._waiting[self.size :]
        if not self._waiting:
            self._there.clear()
        return batch

    async def _call(self, batch: Sequence[_Waiting[Asked, Found]]) -> None:
        self.on_batch(len(batch))
        found: Sequence[Found | BaseException]
        try:
            found = await self._lane.run(self._answer, [one.asked for one in batch])
        except asyncio.CancelledError:
            for one in batch:
                _settle(one.answer, BusyError("searches"))
            raise
        except Exception as error:  # noqa: BLE001 - it is each caller's to handle; this task has to go on
            found = [error] * len(batch)
        for one, answer in zip(batch, found, strict=True):
            _settle(one.answer, answer)


def _settle(waiting: "asyncio.Future[Found]", answer: Found | BaseException) -> None:
    if waiting.done():  # its caller went away
        return
    if isinstance(answer, BaseException):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def measure_batch_size(
    encode: Callable[[Sequence[str]], object], *, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return how many texts are worth one call of `encode`: on some machines a batch takes as long as its texts do."""
    encode(["a first text"])
    best, least = 1, float("inf")
    for size in _PROBED:
        each = min(_seconds(encode, size, clock) for _ in range(3)) / size
        if each > least * _WORTH:
            break
        best, least = size, each
    return best


def _seconds(encode: Callable[[Sequence[str]], object], size: int, clock: Callable[[], float]) -> float:
    since = clock()
    encode([f"a text to measure with, number {number}" for number in range(size)])
    return clock() - since
