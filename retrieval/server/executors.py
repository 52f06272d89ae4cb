"""Thread pools for blocking calls, with bounded queues."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from retrieval.server.errors import BusyError

P = ParamSpec("P")
T = TypeVar("T")


class BoundedExecutor:
    """A thread pool for calls of one kind that refuses a call at once where `queue` of them run or wait.

    With one thread, calls run in the order in which they came. `calls` is their name in the plural, for messages.
    """

    def __init__(self, calls: str, *, threads: int, queue: int) -> None:
        self._calls = calls
        self._queue = queue
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=calls)
        self.pending = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, called on a thread that the caller's cancellation does not stop.

        BusyError if the queue is full.
        """
        if self.pending >= self._queue:
            raise BusyError(self._calls)
        self.pending += 1
        call = asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))
        call.add_done_callback(self._finish)
        return await call

    def _finish(self, call: "asyncio.Future[T]") -> None:
        self.pending -= 1
        if not call.cancelled():
            call.exception()  # mark it as retrieved: the caller may be gone

    def close(self) -> None:
        """Wait for running calls, and drop those in the queue."""
        self._pool.shutdown(wait=True, cancel_futures=True)
