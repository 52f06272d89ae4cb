"""Threads for what blocks, with a bounded number of calls that wait for one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from retrieval.server.errors import BusyError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class BoundedExecutor:
    """So many threads for calls of one kind; a call beyond `queue` is refused at once."""

    def __init__(self, what: str, *, threads: int, queue: int) -> None:
        """Begin with nothing to do.

        Args:
            what: The calls' name in the plural, in messages.
            threads: How many calls run at a time; with 1 they run in the order in which they came.
            queue: How many may be under way or wait.
        """
        self.what = what
        self._queue = queue
        self.waiting = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=what)

    async def run(self, work: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        """Return what `work` returns, called on a thread; who stops waiting for it does not stop it.

        Raises:
            BusyError: too many wait.
        """
        if self.waiting >= self._queue:
            raise BusyError(self.what)
        self.waiting += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
        call.add_done_callback(self._done)
        return await call

    def _done(self, call: "asyncio.Future[Answer]") -> None:
        self.waiting -= 1
        if not call.cancelled():
            call.exception()  # nobody may be left to look at it

    def close(self) -> None:
        """Finish what runs, and drop what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)
